"""What a person means: runs that are named, else the newest, and no newer one is passed over unsaid; of words
that Click does not know, the nearest; and numbers."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from qeval.base.errors import did_you_mean
from qeval.cli.speech import say

if TYPE_CHECKING:
    from qeval.compare.margin import Margin
    from qeval.store.newest import Shown


def meant(
    names: Sequence[str], runs_dir: Path, *, judged: bool = False, told: bool = True
) -> tuple[str, ...]:
    """The names as they are, else the newest run's directory.

    What is `judged` is the newest run of all, or nothing; what is only shown is the newest that has results,
    and a note says which newer one was passed over, and why. `told`: whether that may name a model.
    """
    from qeval.cli.ages import begun
    from qeval.store import newest
    from qeval.store.runs import Store

    if names:
        return tuple(names)
    if judged:
        return (str(newest.strictly(Store(runs_dir), told=told).path),)
    found = newest.shown(Store(runs_dir), told=told)
    if found.passed_over:
        run = found.place.read()
        told_of = f"This is the newest that has results: {run.id}, {begun(run.created)}."
        say(f"Note: {found.passed_over} {told_of}{_only_shown(found)}", err=True)
        say(found.unfinished, err=True, nl=bool(found.unfinished))
    return (str(found.place.path),)


def _only_shown(found: Shown) -> str:
    """Why the older run is shown here and judged nowhere."""
    if not found.remedy:
        return ""
    make = f"{found.remedy[0].lower()}{found.remedy[1:]}"
    return f" It may be shown, not judged: for qeval gate, {make}, or name a run."


def refuse_nowhere(ctx: click.Context, runs_dir: Path) -> None:
    """Raise BadParameter for a directory of runs that was typed and is not there; it is not an empty one."""
    typed = ctx.get_parameter_source("runs_dir") is ParameterSource.COMMANDLINE
    if typed and not runs_dir.is_dir():
        raise click.BadParameter(f"There is no directory {str(runs_dir)!r}.", ctx, param_hint="'--runs-dir'")


# --- words that Click does not know ------------------------------------------------------------------

LONGEST = 15
"""Characters of a whole number."""


class OneOf(click.Choice):  # type: ignore[type-arg,unused-ignore]
    """One of a few words."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word as it is; fails for another one, with what may be meant."""
        if isinstance(value, str) and value not in self.choices:
            known = [str(choice) for choice in self.choices]
            self.fail(f"{value[:60]!r} is not one of the choices. {did_you_mean(value, known)}", param, ctx)
        return super().convert(value, param, ctx)

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What there is to choose from, on one line."""
        del param, ctx
        return f"Choose from: {', '.join(map(str, self.choices))}."


@contextlib.contextmanager
def retold(command: click.Command, ctx: click.Context | None = None) -> Iterator[None]:
    """Within it, what Click says of an option that there is not, or that lacks its value, is said by us."""
    try:
        yield
    except click.NoSuchOption as error:
        raise _no_such_option(error, _options(command, error.ctx or ctx)) from error
    except click.MissingParameter as error:
        sample = _sample(command)
        if not sample:
            raise
        told = f"{error.format_message()} Write e.g.: {sample}"
        raise click.UsageError(told, error.ctx) from error
    except click.BadOptionUsage as error:
        option = _options(command, error.ctx or ctx).get(error.option_name)
        if option is None or option.is_flag:
            raise
        what = option.metavar or option.type.name.upper()
        told = f"{error.option_name} needs a value: {error.option_name} {what}"
        raise click.BadOptionUsage(error.option_name, told, error.ctx) from error


def _options(command: click.Command, ctx: click.Context | None) -> dict[str, click.Option]:
    """The options of a command by each of their names."""
    every = command.get_params(ctx) if ctx is not None else command.params
    return {
        name: option
        for option in every
        if isinstance(option, click.Option) and not option.hidden
        for name in (*option.opts, *option.secondary_opts)
    }


_SAMPLES = {
    "report": {"outputs": ("-o", "report.html")},
    "export": {"to": ("--to", "csv"), "output": ("-o", "tables")},
}
"""What may stand for options that must be there, by the command and the names of its parameters."""


def _sample(command: click.Command) -> str:
    """The command as it was typed, with what must be there and is not; "" where nothing stands for that."""
    name = command.name or ""
    typed = sys.argv[1:] if name in sys.argv else [name]
    given = {word[:2] if not word.startswith("--") else word.partition("=")[0] for word in typed}
    samples = _SAMPLES.get(name, {})
    missing = [one for one in command.params if one.name in samples and given.isdisjoint(one.opts)]
    words = [word for one in missing for word in samples[str(one.name)]]
    return shlex.join(["qeval", *typed, *words]) if words else ""


def _no_such_option(error: click.NoSuchOption, known: Iterable[str]) -> click.NoSuchOption:
    said = _CHOSEN.get(error.option_name) or near_option(error.option_name, known)
    told = f"No such option {error.option_name!r}. {said}".rstrip()
    return click.NoSuchOption(error.option_name, told, ctx=error.ctx)


_METRIC = "Which metric judges a task is said when it is scored: qeval run --model MODEL --tasks TASK:METRIC"
_CHOSEN = {"--metric": _METRIC, "--metrics": _METRIC}
"""Options that people type and no command like this has, and where that is said."""
_SAYS = {"to": "output", "into": "output", "dest": "output", "destination": "output", "save-to": "output"}
"""Options that people type elsewhere, and what says it here."""


def near_option(name: str, known: Iterable[str]) -> str:
    """A hint that names the long options nearest to one that there is not; "" where none is near."""
    bare = {one[2:] for one in known if one.startswith("--")}
    word = name.lstrip("-").replace("_", "-")
    word = _SAYS[word] if _SAYS.get(word) in bare else word
    hint = did_you_mean(word, bare) if name.startswith("--") else ""
    return re.sub(r"'([^']+)'", r"'--\1'", hint) if hint.startswith("Did you mean") else ""


def check_number(parameter: click.Parameter, words: Any, ctx: click.Context | None) -> None:
    """Raises BadParameter for what is no number in a few ASCII digits where an option wants one, and for one
    that is too small or too large."""
    whole = isinstance(parameter.type, type(click.INT))
    if not isinstance(words, str) or not (whole or isinstance(parameter.type, type(click.FLOAT))):
        return

    def refuse(why: str) -> NoReturn:
        raise click.BadParameter(f"{words[:LONGEST]!r} is {why}.", ctx, parameter)

    if "_" in words or not words.isascii() or (whole and len(words) > LONGEST):
        refuse("not a plain number")
    try:
        number = int(words) if whole else float(words)
    except ValueError:
        refuse("not a whole number" if whole else "not a number")
    low, high = (getattr(parameter.type, name, None) for name in ("min", "max"))
    if low is not None and (number < low or (number == low and getattr(parameter.type, "min_open", False))):
        least = f"more than {low}" if getattr(parameter.type, "min_open", False) else f"at least {low}"
        refuse(f"too small; it must be {least}")
    if high is not None and number > high:
        refuse(f"too large; it must be at most {high}")


def amount(_: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """An amount of memory with its unit, 24GiB or 24GB, in bytes. Raises BadParameter for anything else."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([KMGT])(i?)B", text or "", re.IGNORECASE)
    if text is None:
        return None
    if found is None or float(found[1]) == 0:
        raise click.BadParameter(f"{text!r} is no amount of memory. Write e.g. 24GiB.", param=option)
    unit = 1024 if found[3] else 1000
    return int(float(found[1]) * unit ** ("KMGT".index(found[2].upper()) + 1))


def a_margin(_: click.Context, option: click.Parameter, text: str | None) -> Margin:
    """Percentage points, a ratio of word perplexity, or both, as what difference matters. Raises BadParameter
    for anything else."""
    from qeval.compare.margin import Margin

    said: dict[str, float] = {}
    for part in (text or "").split(",") if text is not None else ():
        found = re.fullmatch(r"(x?)([0-9]{1,3}(?:\.[0-9]{1,9})?)", part.strip())
        name = "ratio" if found and found[1] else "points"
        number = float(found[2]) if found else 0.0
        fine = 1 < number < _MOST_RATIO if name == "ratio" else 0 < number < _MOST_POINTS
        if not fine or name in said:
            raise click.BadParameter(
                f"{text!r} is not a margin. Write points, a ratio above 1, or both: 0.5, x1.05 or 0.5,x1.05.",
                param=option,
            )
        said[name] = number
    return Margin(**said)


_MOST_POINTS, _MOST_RATIO = 100, 1000


# --- paths to nothing ---------------------------------------------------------------------------------


def near_path(value: Any, *, file: bool, folder: bool) -> str:
    """A further sentence where nothing is at a path: the file or folder that is most likely meant."""
    from qeval.base.nearby import nearest

    path = Path(os.fsdecode(value))
    if os.path.lexists(path):
        return ""
    near = nearest(path, lambda one: (file and one.is_file()) or (folder and one.is_dir()))
    return f" Did you mean {near}?" if near else ""


# --- files that a command writes ----------------------------------------------------------------------


@contextlib.contextmanager
def outputs_told(command: click.Command, words: click.Context | Sequence[str]) -> Iterator[None]:
    """Within it, an error or Ctrl-C is followed by a note on each output that the words of a command, parsed
    or not, name and that an earlier command left."""
    if not any(_is_output(one) for one in command.params):
        yield
        return
    from qeval.base import leftover

    named = _parsed(words) if isinstance(words, click.Context) else _named(command, words)
    before = {path: leftover.stamps(path) for path in named}
    try:
        yield
    except (click.exceptions.Exit, click.Abort):
        raise  # whoever ends a command by a code has said what there is to say
    except (Exception, KeyboardInterrupt):
        for sentence in leftover.sentences(before):
            say(sentence, err=True)
        raise


def _named(command: click.Command, words: Sequence[str]) -> list[Path]:
    """The outputs that words name which could not be parsed."""
    from qeval.base.places import at_home

    names = [name for one in command.params if _is_output(one) for name in one.opts]
    ahead = list(words[: words.index("--")] if "--" in words else words)
    found = []
    for place, word in enumerate(ahead):
        option, equals, value = word.partition("=")
        if option in names:
            value = value if equals else next(iter(ahead[place + 1 :]), "")
        elif word[:2] in names and not word.startswith("--"):
            value = word[2:]
        else:
            continue
        if value:
            found.append(at_home(value))
    return found


def _parsed(ctx: click.Context) -> list[Path]:
    """The outputs of words that were parsed."""
    values = [ctx.params.get(one.name or "") for one in ctx.command.params if _is_output(one)]
    every = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
    return [Path(os.fspath(one)) for one in every if one]


def _is_output(parameter: click.Parameter) -> bool:
    """Whether a parameter names what the command writes (`options.Output`)."""
    return getattr(parameter.type, "written", False)
