"""`qeval quantize`: the checkpoint that a run would have made and cached, in a directory of one's own."""

from __future__ import annotations

import shutil
from pathlib import Path

from qeval.ask.order import cache_dir, split_revision
from qeval.base.errors import QevalError, UsageError
from qeval.base.files import build_directory
from qeval.base.redirect import libraries_to
from qeval.load.schemes import parse_schemes


def quantize(
    output: Path,
    *,
    model: str,
    scheme: str,
    revision: str | None,
    device: str,
    dtype: str = "auto",
    datasets_dir: Path | None,
) -> Path:
    """Make the checkpoint, or take it from the cache, and copy it to `output`, which must not exist yet.

    Progress goes to stderr, what libraries print to quantize.log in the cache. Raises UsageError for a scheme
    that makes no checkpoint, QevalError where the place cannot be written.
    """
    from qeval.load.model import make_checkpoint

    if output.exists():
        raise QevalError(f"{output} is there already.", "Name a new directory, or remove that one first.")
    named = parse_schemes(scheme)
    if len(named) != 1:
        raise UsageError("--scheme takes one scheme.", "Call the command once for each.")
    model, revision = split_revision(model, revision)
    with libraries_to(cache_dir() / "quantize.log") as say:
        made = make_checkpoint(
            model,
            named[0].scheme,
            revision=revision,
            device=device,
            dtype=dtype,
            cache_dir=cache_dir(),
            datasets_dir=datasets_dir,
            progress=say,
        )

    def copy(place: Path) -> None:
        shutil.copytree(made, place, dirs_exist_ok=True)

    return build_directory(output, copy)
