"""The command line: the group, and the one place where an error becomes a sentence and an exit code.

A command is any Click command in a module of this folder; a new one needs no line here.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import pkgutil
import shlex
import sys
import traceback
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from qeval import __version__, cli
from qeval.base.errors import Exit, QevalError, did_you_mean
from qeval.cli import helping, stops, streams, surprises
from qeval.cli.meant import near_option
from qeval.cli.speech import say, width


class _Door(click.Group):
    """The commands of the modules in this folder, imported when they are asked for; and the funnel."""

    context_class = helping.Page

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_commands(_modules()))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command, from the module of its name where it is there: the others are then not imported."""
        del ctx
        own = _commands(module for module in _modules() if module == name)
        return own.get(name) or _commands(_modules()).get(name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first word; of a name that there is not, what may be meant. Such a call may have
        been meant to make a run."""
        words = list(args)
        try:
            if args and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
                ctx.fail(f"No such command {args[0]!r}. {_meant(args[0], self.list_commands(ctx))}".rstrip())
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            _remember(words, error)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by what they are for."""
        rows = {
            name: (name, command.get_short_help_str(_WHOLE))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) and not command.hidden
        }
        helping.write_groups(formatter, rows, helping.COMMANDS)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The words before the command's name; where there are none at all, what to type."""
        words = list(args)
        if not args and not ctx.resilient_parsing:
            say(helping.first_steps(_newest(), width(err=True) or 100), err=True)
            ctx.exit(int(Exit.USAGE))
        try:
            return super().parse_args(ctx, args)
        except click.ClickException as error:
            _remember(words, error)
            of = partial(self._belonging, ctx, words)
            _refuse(ctx, of(error) if isinstance(error, click.NoSuchOption) else error)

    def _belonging(self, ctx: click.Context, words: list[str], error: click.NoSuchOption) -> click.UsageError:
        """The refusal of an option before the command's name, with the command as it should be typed, else
        the first one that has the option."""
        names = sorted(self.list_commands(ctx), key=lambda name: (name not in _FIRST, name != _FIRST[0]))
        having = {
            name: found[0]
            for name in names
            if (command := self.get_command(ctx, name))
            and (found := [one for one in command.get_params(ctx) if error.option_name in one.opts])
        }
        for name, option in having.items():
            if ordered := _behind(words, name, flag=getattr(option, "is_flag", False)):
                return _misplaced(ctx, error.option_name, ordered)
        for name in having:
            return _misplaced(ctx, error.option_name, [name, error.option_name])
        near = near_option(error.option_name, [name for one in self.get_params(ctx) for name in one.opts])
        return click.UsageError(f"No such option {error.option_name!r}. {near}".rstrip(), ctx)

    def main(self, *args: Any, **more: Any) -> Any:
        """Click's own, from the first word on: help is printed before any command is called."""
        try:
            streams.check()
            return super().main(*args, **more)
        except (QevalError, OSError) as error:
            found = error if isinstance(error, QevalError) else surprises.explained(error)
            _tell(found or _unforeseen(error))
            sys.exit(int(Exit.ERROR))

    def invoke(self, ctx: click.Context) -> Any:
        """Stdout is data; errors go to stderr."""
        try:
            _check_here()
            with stops.heard():
                return super().invoke(ctx)
        except click.ClickException as error:
            _refuse(ctx, error)
        except (click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as stop:
            streams.tell("Stopped. What is finished is kept; the same command resumes from there.")
            ctx.exit(getattr(stop, "exit_code", 130))
        except BrokenPipeError:
            streams.abandon()  # the reader of our output has gone
            ctx.exit(int(Exit.ERROR))
        except Exception as error:  # noqa: BLE001 - a mistake of ours is a sentence too
            found = error if isinstance(error, QevalError) else surprises.explained(error)
            if ctx.params.get("debug"):
                streams.tell(traceback.format_exc())
            _tell(found or _unforeseen(error))
            ctx.exit(int(found.exit_code if found else Exit.ERROR))


def _misplaced(ctx: click.Context, option: str, words: Sequence[str]) -> click.UsageError:
    where = f"Put it after the command: {shlex.join(['qeval', *words])}"
    return click.UsageError(f"No such option {option!r} here. {where}", ctx)


def _behind(words: list[str], name: str, *, flag: bool) -> list[str]:
    """The words with what stands before a command's name behind it; nothing where the name is not there, but
    for the value of the option before it (not of a `flag`)."""
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        if word == name and (flag or not before.startswith("-") or "=" in before or before == "--debug"):
            own = [one for one in words[:at] if one == "--debug"]
            return [*own, name, *(one for one in words[:at] if one != "--debug"), *words[at + 1 :]]
    return []


_FIRST = ("run", "gate", "report")
"""The commands that an option is looked for in before the others."""
_WHOLE = 200
"""Characters of a sentence of help that is never cut."""


_ELSEWHERE = {
    "help": "--help",
    "version": "--version",
    "compare": "show",
    "diff": "show",
    "eval": "run",
    "score": "run",
    "runs": "list",
    "schemes": "list",
    "suites": "list",
    "quantise": "quantize",
}
"""Words that people type, and what does that here."""


def _meant(word: str, commands: Iterable[str]) -> str:
    """A hint for a word that is no command: the command or option that is like it, or does what it says."""
    hint = did_you_mean(_ELSEWHERE.get(word, word), [*commands, *_ELSEWHERE.values()])
    return hint if hint.startswith("Did you mean") else ""


def _newest() -> str | None:
    """The name of the newest run there is, if any."""
    from qeval.store.runs import Store

    try:
        return next(
            (place.path.name for place in Store(Path(os.environ.get("QEVAL_RUNS_DIR") or "runs")).runs()),
            None,
        )
    except (QevalError, OSError):
        return None


def _check_here() -> None:
    """Raises QevalError where the current directory was deleted: torch ends a process that is in none."""
    try:
        Path.cwd()
    except OSError as error:
        raise QevalError(
            "The current directory is gone or cannot be used.", "Change to one that exists."
        ) from error


def _tell(error: QevalError) -> None:
    streams.tell(f"Error: {error.message}")
    if error.hint:
        streams.tell(error.hint)


def _unforeseen(error: Exception) -> QevalError:
    return QevalError(
        f"something unforeseen happened ({type(error).__name__}: {error}).",
        "That is a mistake in qeval; `qeval --debug ...` shows where.",
    )


def _refuse(ctx: click.Context, error: click.ClickException) -> NoReturn:
    """Say what Click says, as we print everything, and exit."""
    said = io.StringIO()
    error.show(said)
    say(said.getvalue(), err=True, nl=False)
    ctx.exit(error.exit_code)


def _remember(words: list[str], error: click.ClickException) -> None:
    """Remember a refusal that may be of a run, or of a gate whose files say otherwise."""
    from qeval.cli.ordering import group_refused, withdraw

    group_refused(words, error)
    withdraw(words, error)


def _modules() -> tuple[str, ...]:
    """The other modules of this folder, by name."""
    return _in(tuple(cli.__path__))


@functools.cache
def _in(folders: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for _, name, _ in pkgutil.iter_modules(folders) if name != "main")


def _commands(modules: Iterable[str]) -> dict[str, click.Command]:
    """The commands that the modules define, by name."""
    found = [vars(importlib.import_module(f"{cli.__name__}.{name}")).values() for name in modules]
    commands = [value for values in found for value in values if isinstance(value, click.Command)]
    return {str(command.name): command for command in commands}


@click.group(
    cls=_Door,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="qeval")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """What did quantisation cost a model, is the loss real, and is it allowed?

    \b
    qeval run --model meta-llama/Llama-2-13b-hf --schemes fp16,bnb4,gptq
    qeval report -o report.html
    qeval gate --max-drop 1.0
    """  # noqa: D301 - \b is Click's mark for a paragraph left as it is
