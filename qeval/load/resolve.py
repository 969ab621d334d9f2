"""Which weights a variant means, decided in one place: for its key, its loading and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qeval.base.places import at_home
from qeval.base.records import Variant
from qeval.load import adapter
from qeval.load.making import calibration, checkpoint
from qeval.load.schemes import SCHEMES
from qeval.load.source import Source, model_files, model_identity, refuse_revision
from qeval.load.versions import versions


@dataclass(frozen=True)
class Meant:
    """The weights that a variant means: `model` is the unquantised model, `ready` a quantised checkpoint,
    None where qeval quantises the model itself. `sentence` tells the choice to a person, empty where there
    was none."""

    model: Source
    ready: Source | None
    sentence: str = ""

    @property
    def weights(self) -> Source:
        """What is read, or quantised here."""
        return self.ready or self.model

    def identity(self, cache_dir: Path) -> dict[str, Any]:
        """What makes these weights the ones they are; see `source.model_identity`."""
        return model_identity(self.weights.path, self.weights.revision, cache_dir)


def resolve(variant: Variant) -> Meant:
    """Decide whether a ready checkpoint is read: the one named, or one that is known to be published.

    Raises QevalError for a revision of what has none.
    """
    meant = _resolve(variant)
    for source in (meant.model, meant.ready):
        if source is not None:
            refuse_revision(source)
    return meant


def made_here(variant: Variant) -> bool:
    """Whether a variant's checkpoint is quantised by qeval, with calibration text, before it is loaded."""
    return SCHEMES[variant.scheme.kind].calibrated and resolve(variant).ready is None


def _resolve(variant: Variant) -> Meant:
    scheme = variant.scheme
    spec = SCHEMES[scheme.kind]
    model = Source(variant.model, variant.revision)
    if scheme.checkpoint is not None:
        return Meant(model, Source(scheme.checkpoint, scheme.revision))
    known = spec.known(variant.model, scheme.options) if spec.known is not None else None
    if known is not None:
        sentence = f"{variant.name} reads the ready checkpoint {known.path}, revision {known.revision}."
        return Meant(model, known, sentence)
    if not spec.calibrated:
        return Meant(model, None)
    chosen = checkpoint.calibration_of(variant.model, spec.complete(scheme.options))
    text = "qeval's own" if chosen.name == calibration.OWN else chosen.name
    return Meant(
        model,
        None,
        f"{variant.name} is quantised here, with {chosen.samples} samples of {chosen.length} tokens"
        f" of calibration text ({text}{f', seed {chosen.seed}' if chosen.seed else ''}).",
    )


def identity(variant: Variant, cache_dir: Path, datasets_dir: Path | None = None) -> dict[str, Any]:
    """Everything about a variant that can change its numbers, as JSON values, found without torch.

    `datasets_dir` is the mirror that a calibration set may come from.

    Raises QevalError where the model, its checkpoint or its adapter cannot be found.
    """
    scheme = variant.scheme
    spec = SCHEMES[scheme.kind]
    meant = resolve(variant)
    text = _calibration(variant, meant)
    libraries = [package.distribution for package in spec.packages]
    return {
        "model": model_identity(variant.model, variant.revision, cache_dir),
        "scheme": scheme.kind,
        "options": spec.in_key(scheme.options),
        "checkpoint": meant.identity(cache_dir) if meant.ready else None,
        "calibration": calibration.identity(text, datasets_dir, cache_dir) if text else None,
        "adapter": adapter.identity(variant.adapter, cache_dir) if variant.adapter else None,
        "versions": versions(*libraries, *(["peft"] if variant.adapter else [])),
    }


def local_files(variant: Variant, datasets_dir: Path | None = None) -> tuple[Path, ...]:
    """The files here that a variant is made of: model, ready checkpoint, adapter, calibration text or set."""
    meant = resolve(variant)
    parts = [meant.model, *filter(None, (meant.ready,))]
    parts += [adapter.split(variant.adapter)[0]] if variant.adapter else []
    text = _calibration(variant, meant)
    named = [at_home(text.name)] if text else []
    found = [path for part in parts if part.local for path in model_files(Path(part.place))]
    drawn = calibration.mirrored_files(text, datasets_dir) if text else []
    return (*found, *(path for path in named if path.is_file()), *drawn)


def calibration_text(variant: Variant) -> str | None:
    """The whole text that a variant is quantised with here; None where nobody calibrates here, or with a set
    of the Hub. Raises QevalError for a file that cannot be read."""
    found = _calibration(variant, resolve(variant))
    return calibration.text_at_hand(found) if found else None


def _calibration(variant: Variant, meant: Meant) -> calibration.Calibration | None:
    spec = SCHEMES[variant.scheme.kind]
    if not spec.calibrated or meant.ready is not None:
        return None
    return checkpoint.calibration_of(variant.model, spec.complete(variant.scheme.options))


def calibration_set(variant: Variant) -> tuple[str, str] | None:
    """The Hub's data set and its configuration that a variant is quantised with here; None where nobody
    calibrates here, or with a text."""
    found = _calibration(variant, resolve(variant))
    if found is None or found.name not in calibration.HUB_SETS:
        return None
    return calibration.HUB_SETS[found.name][:2]
