"""A command that makes runs leaves a mark where it is refused, whoever refuses it.

`qeval run --tpyo; qeval gate` in a script that goes on after errors would else judge the run before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from qeval.base.errors import QevalError, did_you_mean
from qeval.cli.options import Strict

MAKERS = ("run", "import")
"""The commands that make runs."""


class Making(Strict):
    """A command that makes runs: where its words are refused, that is remembered."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context. What is refused here was asked for all the same."""
        if extra.get("resilient_parsing"):
            return super().make_context(info_name, args, parent, **extra)
        with remembered(list(args)):
            return super().make_context(info_name, args, parent, **extra)


@contextlib.contextmanager
def remembered(words: Sequence[str], runs_dir: Path | None = None) -> Iterator[None]:
    """Where the words of a command are refused, remember that whoever typed them asked for a run; nothing of
    a dry run, which asks for none."""
    try:
        yield
    except (click.ClickException, QevalError, OSError) as error:
        if "--dry-run" not in words:
            _remember(words, runs_dir, error)
        raise


def group_refused(words: Sequence[str], error: click.ClickException) -> None:
    """Remember a refusal of words before a command's name, or of that name, if a run was likely asked for."""
    names = [word for word in words if not word.startswith("-")]
    if any(name in MAKERS or "Did you mean" in did_you_mean(name, MAKERS) for name in names[:1]):
        with contextlib.suppress(click.ClickException), remembered(words):
            raise error


def _remember(words: Sequence[str], runs_dir: Path | None, error: Exception) -> None:
    from qeval.store.newest import not_begun

    told = error.format_message() if isinstance(error, click.ClickException) else str(error)
    why = error.message if isinstance(error, QevalError) else told
    not_begun(runs_dir or _place(words), _after(words, "--model", "-m"), why)


def _place(words: Sequence[str]) -> Path:
    """Where runs are kept, as far as refused words tell."""
    from qeval.cli.configured import runs_dir_here

    found = _after(words, "--runs-dir") or os.environ.get("QEVAL_RUNS_DIR") or runs_dir_here() or "runs"
    return Path(found).expanduser()


def _after(words: Sequence[str], *names: str) -> str:
    """The value of an option in words that were not parsed; "" where it is not there."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else next(iter(words[place + 1 :]), "")
    return ""
