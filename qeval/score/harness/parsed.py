"""Whether the YAML files of tasks can be parsed at all, found without lm-eval."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from qeval.base.errors import QevalError
from qeval.base.reading import opened
from qeval.score.harness.catalogue import scan


def unreadable(name: str, path: Path, error: Exception) -> QevalError:
    """What is said of a task whose file does not parse, whoever asks."""
    what = " ".join(str(error).split()).rstrip(".")
    return QevalError(f"The file of task {name!r}, {path}, cannot be read: {what}.", "Correct it.")


def check(names: Iterable[str], folder: Path) -> None:
    """Raise QevalError for the first of the named tasks, groups and tags whose file in a folder does not
    parse. What a file includes is not followed, and no function that it names is looked for."""
    import yaml

    found = scan(folder)
    for asked in names:
        for name in (asked, *found.tags.get(asked, ())):
            if name in found.files:
                path = Path(found.files[name])
                try:
                    with opened(path) as file:  # of a string an error would quote whole lines
                        list(yaml.parse(file, Loader=yaml.SafeLoader))
                except (yaml.YAMLError, OSError) as error:
                    raise unreadable(name, path, error) from error
