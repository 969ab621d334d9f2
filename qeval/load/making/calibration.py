"""Texts that GPTQ and AWQ calibrate on: c4, wikitext2, the text that comes with qeval, or a file."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from qeval.base import contents, elsewhere
from qeval.base.errors import QevalError
from qeval.base.places import at_home
from qeval.base.reading import text as text_of
from qeval.load.mirror import remedy

OWN = "own"
HUB_SETS = {
    "c4": ("allenai/c4", "en", "train"),
    "wikitext2": ("Salesforce/wikitext", "wikitext-2-raw-v1", "train"),
}
"""Name: Hub id, configuration, split."""
_LONGEST_TEXT = 1 << 28
"""The most bytes of a text file that is calibrated on."""
_DRAWN_FROM = 8
"""Files of a mirror, at most, that its first documents lie in: a whole C4 is not read to know them."""
SPARE = 12
"""Documents looked at for every sample drawn, at most; C4 is streamed, never fetched whole."""


@dataclass(frozen=True)
class Calibration:
    """`samples` windows of `length` tokens each out of the text `name`, drawn with `seed`."""

    name: str
    samples: int
    length: int
    seed: int = 0


def complete(name: str, samples: int, length: int, seed: int, *, demo: bool) -> Calibration:
    """Fill in what was left to choose ("auto", 0): 128 x 2048 tokens of C4, as the GPTQ paper took; for the
    demo model 16 x 256 tokens of our own text, which a CPU manages in minutes."""
    chosen = (OWN if demo else "c4") if name == "auto" else name
    usual = (16, 256) if chosen == OWN else (128, 2048)
    return Calibration(chosen, samples or usual[0], length or usual[1], seed)


def identity(
    calibration: Calibration, datasets_dir: Path | None = None, cache_dir: Path | None = None
) -> dict[str, Any]:
    """What the calibration is, for the key of a checkpoint: a text by its hash, a Hub set by its name, one of
    a mirror by what its files hold too.

    Windows of a text are drawn for seeds other than 0 alone; before, no seed acted on a text.
    """
    named = {"samples": calibration.samples, "length": calibration.length, "seed": calibration.seed}
    if calibration.name in HUB_SETS:
        files = mirrored_files(calibration, datasets_dir)
        held = {"mirror": contents.hashes(files, cache_dir)} if files else {}
        return {"set": calibration.name, **named, **held}
    text = text_at_hand(calibration) or ""
    drawn = {"drawn": True} if calibration.seed else {}
    return {"text": hashlib.sha256(text.encode()).hexdigest(), **named, **drawn}


def mirrored_files(calibration: Calibration, datasets_dir: Path | None) -> list[Path]:
    """The files of a mirror that the calibration is drawn from; none of a text, and of the Hub's own set."""
    place = _mirror(calibration, datasets_dir)
    if place is None:
        return []
    _, configuration, split = HUB_SETS[calibration.name]
    files = [path for path in elsewhere.files_below(place) if path.suffix != ".md"]
    inner = [path for path in files if configuration in path.relative_to(place).as_posix()] or files
    return ([path for path in inner if split in path.name] or inner)[:_DRAWN_FROM]


def _mirror(calibration: Calibration, datasets_dir: Path | None) -> Path | None:
    if datasets_dir is None or calibration.name not in HUB_SETS:
        return None
    place = datasets_dir / HUB_SETS[calibration.name][0]
    return place if place.is_dir() else None


def text_at_hand(calibration: Calibration) -> str | None:
    """The whole text that is calibrated on; None for a set, of which only a part is drawn, from the Hub.

    Raises QevalError for a file that cannot be read.
    """
    if calibration.name in HUB_SETS:
        return None
    return _own_text() if calibration.name == OWN else _file_text(calibration.name)


def windows(calibration: Calibration, tokenizer: Any, datasets_dir: Path | None = None) -> list[list[int]]:
    """(samples, length) token ids. Raises QevalError where the text cannot be had or is too short.

    From a set, documents are drawn by the seed and joined, as many as fill the windows. A text (our own, a
    file) is cut into windows in its order where the seed is 0; another seed draws where each begins.
    """
    wanted = calibration.samples * calibration.length
    if calibration.name in HUB_SETS:
        tokens = _joined(_documents(calibration, datasets_dir), tokenizer, wanted)
    else:
        text = text_at_hand(calibration) or ""
        tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    count = min(calibration.samples, len(tokens) // calibration.length)
    if count == 0:
        raise QevalError(
            f"The calibration text {calibration.name} has {len(tokens)} tokens, less than one sample of"
            f" {calibration.length}.",
            "Give a longer text or a smaller length.",
        )
    drawn = calibration.seed != 0 and calibration.name not in HUB_SETS
    starts = (
        _drawn_starts(calibration, count, len(tokens))
        if drawn
        else range(0, count * calibration.length, calibration.length)
    )
    return [tokens[start : start + calibration.length] for start in starts]


def _drawn_starts(calibration: Calibration, count: int, available: int) -> list[int]:
    """Where `count` windows of a text of `available` tokens begin: one somewhere in each of as many equal
    parts of it, so that every seed sees the whole text. Neighbours may overlap.

    Raises QevalError for a text that is a single window, of which there is nothing to draw.
    """
    places = available - calibration.length + 1
    if places == 1:
        raise QevalError(
            f"The calibration text {calibration.name} is one sample of {calibration.length} tokens, so no"
            " seed acts on it.",
            "Give a longer text or a smaller length, or leave the seed out.",
        )
    draw = random.Random(calibration.seed)  # noqa: S311 - a reproducible draw, no secret
    return [draw.randrange(i * places // count, (i + 1) * places // count) for i in range(count)]


def _joined(documents: Iterable[str], tokenizer: Any, wanted: int) -> list[int]:
    """At least `wanted` tokens, an end-of-text token after each document, if there are so many."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    tokens: list[int] = []
    for text in documents:
        if len(tokens) >= wanted:
            break
        tokens += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] + end
    return tokens


def _documents(calibration: Calibration, datasets_dir: Path | None) -> Iterator[str]:
    """Texts of a Hub set in an order drawn with the seed. Raises QevalError where it cannot be reached."""
    from datasets import load_dataset

    name, configuration, split = HUB_SETS[calibration.name]
    place = str(_mirror(calibration, datasets_dir) or name)
    try:
        rows = load_dataset(place, configuration, split=split, streaming=True)
        texts = [str(row["text"]) for row in rows.take(SPARE * max(calibration.samples, 100))]
    except Exception as error:
        raise QevalError(
            f"The calibration set {calibration.name} ({name}) cannot be read:"
            f" {' '.join(str(error).split())[:200].rstrip('.')}.",
            remedy(
                [name],
                datasets_dir,
                "Name a mirror of it with --datasets-dir, a text of your own with calibration=FILE, or the"
                f" one that comes with qeval, as in: --schemes 'gptq[calibration={OWN}]'",
            ),
        ) from error
    kept = [text for text in texts if text.strip()]
    random.Random(calibration.seed).shuffle(kept)  # noqa: S311 - a reproducible draw, no secret
    return iter(kept)


def _own_text() -> str:
    return (files("qeval.load.making") / "calibration.txt").read_text("utf-8")


def _file_text(name: str) -> str:
    try:
        return text_of(at_home(name), _LONGEST_TEXT)
    except (OSError, RuntimeError) as error:  # no home directory is a RuntimeError
        raise QevalError(
            f"There is no calibration text {name!r}: it is neither a set nor a text file that can be read.",
            f"Use {', '.join(HUB_SETS)}, {OWN}, or the path of a UTF-8 text file.",
        ) from error
