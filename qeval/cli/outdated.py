"""Files of an earlier gate: where the words of a later one are refused, whoever refuses them, they say so.

What could not be parsed tells no names of files, so they are read from the words as they were typed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from qeval.base.errors import QevalError
from qeval.cli.unknown import near_option


def files_in(words: Sequence[str]) -> list[tuple[str, Path]]:
    """The files that words of `qeval gate` name, by format; of an option that is nearly one of them only a
    file that looks as its format does."""
    from qeval.judge.formats import formats

    options = {f"--{name}": name for name, found in formats().items() if found.help}
    ahead = list(words[: words.index("--")] if "--" in words else words)
    found = []
    for place, word in enumerate(ahead):
        option, equals, value = word.partition("=")
        file = value if equals else next(iter(ahead[place + 1 :]), "")
        if option in options and file:
            found.append((options[option], Path(file).expanduser()))
        elif option.startswith("--") and file:
            found += _nearly(option, Path(file).expanduser(), options)
    return found


def _nearly(option: str, file: Path, options: dict[str, str]) -> Iterator[tuple[str, Path]]:
    from qeval.judge.formats import is_of

    near = near_option(option, options)
    for one, name in options.items():
        with contextlib.suppress(OSError):
            if repr(one) in near and is_of(file, name):
                yield name, file


@contextlib.contextmanager
def withdrawn(words: Sequence[str]) -> Iterator[None]:
    """Within it, where the words are refused, the files that they name tell of no verdict."""
    try:
        yield
    except (click.ClickException, QevalError, OSError) as error:
        withdraw(words, error)
        raise


def withdraw(words: Sequence[str], error: Exception) -> None:
    """Let the files that these words name tell that a gate came to no verdict for this error."""
    from qeval.judge import formats

    if not any(word.startswith("--") for word in words):
        return
    why = error.format_message() if isinstance(error, click.ClickException) else str(error)
    formats.withdraw(files_in(words), why)
