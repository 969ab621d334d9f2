"""What a person may call a model: a Hub id with @revision, a directory, demo, or toy."""

from __future__ import annotations

from qeval.base.errors import UsageError
from qeval.base.places import at_home
from qeval.load.source import DEMO
from qeval.load.toy import is_toy


def split_revision(model: str, revision: str | None) -> tuple[str, str | None]:
    """`org/name@revision` in two; a local directory may have an @ in its name."""
    if is_toy(model) or "@" not in model or at_home(model).exists():
        return model, revision
    name, _, written = model.rpartition("@")
    if revision and revision != written:
        raise UsageError(f"Two revisions are given, {written!r} and {revision!r}.", "Leave one of them out.")
    return name, written


def usual_suite(model: str) -> str:
    """The suite that is asked where none is named: our own small one for the small models."""
    return "demo" if model == DEMO or is_toy(model) else "leaderboard-v1"
