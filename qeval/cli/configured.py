"""What `qeval run` is asked for besides its words: by a file here, and by variables QEVAL_RUN_*.

The file is [run] of qeval.toml or [tool.qeval.run] of pyproject.toml. Words go before variables, variables
before the file, the file before what is usual.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from qeval.base.errors import UsageError, did_you_mean
from qeval.base.reading import content
from qeval.base.tables import read
from qeval.cli import helping
from qeval.cli.meant import check_number
from qeval.cli.options import Strict
from qeval.cli.said import key_option, spelled
from qeval.cli.speech import width

PREFIX = "QEVAL_RUN_"
_NEARLY = 0.85
"""How alike a name is to one of ours that was meant."""
_MEASURED = ("tasks_dir", "datasets_dir")
"""Options that have a variable of their own and change what is measured."""
ENVIRONMENT = "the environment"
_FILES = (("qeval.toml", ("run",)), ("pyproject.toml", ("tool", "qeval", "run")))
_BY_HAND = ("trust_remote_code", "allow_", "quiet")
"""How options begin that are said in words alone: whoever lets something through says so each time, and
nothing that lies here keeps silent on itself."""


TYPED = "qeval.typed"
"""Where a context keeps the words of an import."""


class Making(Strict):
    """A command that makes runs: where its words are refused, that is remembered."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context. What is refused here was asked for all the same."""
        if extra.get("resilient_parsing"):
            return super().make_context(info_name, args, parent, **extra)
        from qeval.cli.ordering import remembered

        words = list(args)
        command = ("qeval", "import", *words) if self.name == "import" else ()
        with remembered(words, command=command):
            made = super().make_context(info_name, args, parent, **extra)
        made.meta[TYPED] = command
        return made


class Configured(Making):
    """A command whose options may stand in a file or in variables too."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        for key, option in _options(self).items():
            if option.envvar is None and not by_hand(key):
                option.envvar = PREFIX + key.upper()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Raises UsageError for a word that belongs to no option, with where it may belong."""
        values, stray, _ = self.make_parser(ctx).parse_args(list(args))
        if stray and not ctx.resilient_parsing and not {"-h", "--help"} & set(args):
            belongs = (
                "Separate the names with commas, without spaces: fp16,gptq"
                if "model" in values
                else f"A model is named by --model: --model {stray[0]}"
            )
            raise click.UsageError(f"Got unexpected extra argument {stray[0]!r}. {belongs}", ctx)
        return super().parse_args(ctx, args)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context, with what the file says as its defaults. Raises UsageError for a key or a variable
        that there is not, and for a value of another kind."""
        if not extra.get("resilient_parsing") and not {"-h", "--help"} & set(args):
            from qeval.cli.ordering import remembered

            with remembered(args):
                _check_variables(self)
                extra["default_map"] = _defaults(self)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.MissingParameter as error:
            begin = "\n".join(helping.aligned(helping.EXAMPLES[self.name or ""], width(err=True) or 100))
            raise click.UsageError(
                f"{error.format_message()} Begin with one of:\n\n{begin}", error.ctx
            ) from error


def by_hand(key: str) -> bool:
    """Whether an option is taken from the command line alone."""
    return key.startswith(_BY_HAND)


def given(ctx: click.Context) -> tuple[str, ...]:
    """What the file and the variables add to the words of a command, as words; of variables that other
    commands heed too, those that change what is measured."""
    words = [word for words in _given(ctx).values() for word in words]
    return (*words, *_shared(ctx))


def told(ctx: click.Context) -> Iterator[str]:
    """A sentence for each place that adds something."""
    for place, words in _given(ctx).items():
        yield f"From {place}: {shlex.join(words)}"


def place_of(ctx: click.Context, name: str) -> str:
    """The file that a parameter's value comes from, or "the environment"; "" where neither tells it."""
    source = ctx.get_parameter_source(name)
    if source is ParameterSource.DEFAULT_MAP:
        return _file()[0]
    return ENVIRONMENT if source is ParameterSource.ENVIRONMENT else ""


def _given(ctx: click.Context) -> dict[str, list[str]]:
    """The words by the place that they come from."""
    found: dict[str, list[str]] = {}
    for key, option in _options(ctx.command).items():
        name = option.name or ""
        source = ctx.get_parameter_source(name)
        if source is ParameterSource.DEFAULT_MAP and ctx.default_map is not None:
            found.setdefault(_file()[0], []).extend(spelled(option, ctx.default_map[name]))
        elif source is ParameterSource.ENVIRONMENT and option.envvar == PREFIX + key.upper():
            value = ctx.params[name] if option.is_flag else _variable(option, os.environ[str(option.envvar)])
            found.setdefault(ENVIRONMENT, []).extend(spelled(option, value))
    return found


def _shared(ctx: click.Context) -> list[str]:
    """Words for the variables without the prefix, such as QEVAL_TASKS_DIR: the same words elsewhere would ask
    something else. Where runs are kept is left to whoever makes them again."""
    return [
        word
        for option in _options(ctx.command).values()
        if option.name in _MEASURED and ctx.get_parameter_source(option.name) is ParameterSource.ENVIRONMENT
        for word in spelled(option, ctx.params[option.name])
    ]


def _variable(option: click.Option, text: str) -> Any:
    return option.type.split_envvar_value(text) if option.multiple else text


def _options(command: click.Command) -> dict[str, click.Option]:
    """The options of a command by their keys: long names, with _ for -."""
    return {
        key_option(option)[2:].replace("-", "_"): option
        for option in command.params
        if isinstance(option, click.Option)
    }


def _check_variables(command: click.Command) -> None:
    """Raise UsageError for a variable of no option, of one that is said in words alone or has another
    variable, and for a name that is nearly one of ours: it would do nothing, and something else be scored."""
    for name in sorted(name for name in os.environ if name.upper().startswith(PREFIX)):
        key = name[len(PREFIX) :].lower()
        _check_key(command, key, ENVIRONMENT)
        option = _options(command)[key]
        if option.envvar != name:
            raise UsageError(
                f"{name} would do nothing.", f"The variable of {key_option(option)} is {option.envvar}."
            )
        check_number(option, os.environ[name], None)
    _refuse_misspelt()


def _refuse_misspelt() -> None:
    from qeval.cli.variables import VARIABLES

    ours = [name for name in VARIABLES if name.startswith("QEVAL_")]
    for name in sorted(name for name in os.environ if name.startswith("QEVAL_") and name not in ours):
        from difflib import get_close_matches  # takes 10 ms, and few have such a variable

        meant = get_close_matches(name, ours, n=1, cutoff=_NEARLY)
        if meant and not name.startswith(PREFIX):
            raise UsageError(
                f"{name} would do nothing.", f"Did you mean {meant[0]!r}? If not, unset it: unset {name}"
            )


def _defaults(command: click.Command) -> dict[str, Any]:
    """What the file says, by the names of the command's parameters."""
    place, table = _file()
    known = _options(command)
    found: dict[str, Any] = {}
    for written, value in table.items():
        key = written.replace("-", "_")
        _check_key(command, key, place)
        if key == "runs_dir":
            raise UsageError(
                f"{place} says where `qeval run` keeps runs, and no other command would look there.",
                "Set QEVAL_RUNS_DIR, which all of them heed.",
            )
        option = known[key]
        if option.name in found:
            raise UsageError(f"{place} says {key} twice.", "Keep one of them.")
        found[option.name or ""] = _value(option, key, value, place)
    return found


def _check_key(command: click.Command, key: str, place: str) -> None:
    if by_hand(key):
        option = f"--{key.replace('_', '-')}"
        raise UsageError(
            f"{option} can be given on the command line only, and {place} names it.",
            "Leave it out there, and give it each time.",
        )
    known = [one for one in _options(command) if not by_hand(one)]
    if key not in known:
        raise UsageError(
            f"{key!r} in {place} is not an option of `qeval {command.name}`.", did_you_mean(key, known)
        )


def _value(option: click.Option, key: str, value: Any, place: str) -> Any:
    """A value of the kind that its option wants; a list of words becomes text with commas."""
    if option.is_flag:
        fine, kind = isinstance(value, bool), "true or false"
    elif isinstance(option.type, type(click.INT)):
        fine, kind = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif isinstance(option.type, type(click.FLOAT)):
        fine, kind = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    elif option.multiple:
        fine, kind = _is_texts(value), "a list of texts in quotes"
    elif option.metavar == "LIST" and _is_texts(value):
        return ",".join(value)
    else:
        fine, kind = isinstance(value, str), "text in quotes"
    if not fine:
        raise UsageError(f"{place}: {key} = {str(value)[:60]!r} is not allowed.", f"It must be {kind}.")
    return value


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _file() -> tuple[str, Mapping[str, Any]]:
    """The file here that says what to run, and its table; nothing where none does.

    Raises UsageError where two do, and for a table of qeval.toml that there is not.
    """
    found = [(name, table) for name, keys in _FILES if (table := _table(Path(name), keys)) is not None]
    if len(found) > 1:
        raise UsageError("qeval.toml and pyproject.toml both set options.", "Keep one of the two tables.")
    return found[0] if found else ("", {})


def _table(path: Path, keys: tuple[str, ...]) -> Mapping[str, Any] | None:
    """The table of a file; None where there is no such file or table."""
    if not path.exists() or (path.name == "pyproject.toml" and not _mentions(path)):
        return None
    table: Any = read(path, "file")
    if path.name == "qeval.toml" and (unknown := sorted(set(table) - {"run"})):
        raise UsageError(f"qeval.toml: there is no table [{unknown[0]}].", did_you_mean(unknown[0], ["run"]))
    for key in keys:
        if path.name == "pyproject.toml" and key == keys[-1]:
            _refuse_others(path, table)
        table = table.get(key) if isinstance(table, Mapping) else None
    if table is not None and not isinstance(table, Mapping):
        raise UsageError(
            f"{path}: {'.'.join(keys)} is not a table.", f"Write [{'.'.join(keys)}] above its keys."
        )
    return table


def _refuse_others(path: Path, ours: Any) -> None:
    """Raise UsageError for a table of [tool.qeval] that there is not: what it says would be passed over."""
    unknown = sorted(set(ours) - set(_OURS)) if isinstance(ours, Mapping) else []
    if unknown:
        raise UsageError(
            f"{path}: there is no table [tool.qeval.{unknown[0]}].", did_you_mean(unknown[0], _OURS)
        )


_OURS = ("run", "gate")
"""The tables of [tool.qeval]."""


def _mentions(path: Path) -> bool:
    """Whether a project's file has anything of us: a broken one that has not is none of our business."""
    try:
        return _TABLE.search(content(path)) is not None
    except OSError:
        return False


_TABLE = re.compile(rb"tool[\s\"']*\.[\s\"']*qeval|^[ \t]*qeval\b[\w.\s\"']*[.=]", re.MULTILINE)
"""[tool.qeval], however it is spaced or quoted, or a key qeval of [tool]."""
