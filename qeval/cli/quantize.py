"""`qeval quantize`: the checkpoint that a run would have made and cached, in a directory of one's own."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from qeval.base.errors import QevalError, UsageError
from qeval.base.waiting import wait_briefly
from qeval.cli import options
from qeval.cli.speech import say


@click.command(cls=options.Strict)
@click.option(
    "--model", "-m", required=True, metavar="MODEL", help="Hub id (with @revision), directory or demo."
)
@click.option(
    "--scheme", "-s", required=True, metavar="SCHEME", help="For example gptq[bits=4,act_order=true]."
)
@click.option(
    "--output",
    "-o",
    type=options.Place(path_type=Path, file_okay=False),
    required=True,
    help="A new directory.",
)
@click.option("--revision", metavar="REV", help="Revision of the model on the Hub.")
@click.option("--device", default="auto", show_default=True, help="cuda, cuda:1, cpu ...")
@click.option(
    "--dtype", default="auto", show_default=True, help="Type to calculate in, as given to `qeval run`."
)
@options.mirror
def quantize(output: Path, **asked: Any) -> None:
    """Make and save the checkpoint that `qeval run` would score, so that what was gated is what ships.

    gptq and awq are what it makes. Schemes that quantise while loading, such as bnb4, are saved by
    transformers: docs/schemes.md says how.
    """
    say(str(_ship(output, **asked)))
    say(f"Score it: {_next(output, asked)}", err=True)


def _next(output: Path, asked: Mapping[str, Any]) -> str:
    """The command that scores what was made, beside the model that it was made of."""
    from qeval.base.names import scheme_text
    from qeval.base.records import Scheme
    from qeval.load.schemes import parse_schemes

    kind = parse_schemes(asked["scheme"])[0].scheme.kind
    place = str(output) if output.is_absolute() else os.path.join(os.curdir, output)  # noqa: PTH118 - Path drops ./
    revision = ["--revision", asked["revision"]] if asked["revision"] else []
    schemes = f"fp16,{scheme_text(Scheme(kind, checkpoint=place))}"
    return f"qeval run {shlex.join(['--model', asked['model'], *revision, '--schemes', schemes])}"


def _ship(
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
    wait_briefly()
    from qeval.ask.model import split_revision
    from qeval.base.files import build_directory
    from qeval.base.places import cache_dir
    from qeval.base.redirect import libraries_to
    from qeval.load.model import make_checkpoint
    from qeval.load.schemes import parse_schemes
    from qeval.load.toy import is_toy

    if output.exists():
        raise QevalError(f"{output} is there already.", "Name a new directory, or remove that one first.")
    named = parse_schemes(scheme)
    if len(named) != 1:
        raise UsageError("--scheme takes one scheme.", "Run the command once for each.")
    if is_toy(model):
        raise UsageError("The toy has no weights to quantise.", "A small real model is --model demo.")
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
