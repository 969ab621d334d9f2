"""Provenance and settings as labelled facts, for a person to read."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qeval.base import installed, next_steps, numbers
from qeval.base.names import option_text, scheme_text
from qeval.base.records import ENOUGH_QUANTISED, Provenance, Result, Run
from qeval.base.redacted import is_redacted
from qeval.compare.evidence import Evidence
from qeval.compare.margin import Margin
from qeval.report import scorers

Fact = tuple[str, str]
OWN = "qeval"  # the source of a run that qeval itself scored
LONGEST = 300
"""Characters of a nested value that are shown; a checkpoint may name hundreds of layers."""
_MOST_DATASETS = 6


def provenance_facts(run: Run, result: Result) -> tuple[Fact, ...]:
    """What was asked for, what was truly loaded, and what else scored some of it; facts that are unknown are
    left out."""
    asked = [("Requested scheme", scheme_text(result.variant.scheme))]
    if result.variant.adapter:
        asked.append(("Adapter", result.variant.adapter))
    loaded = _loaded(result.provenance) if result.provenance else []
    loaded.append(("Scored elsewhere or earlier", scorers.fact(run, result)))
    return tuple((label, value) for label, value in asked + loaded if value)


def _loaded(made: Provenance) -> list[Fact]:
    return [
        ("Model loaded", made.model),
        ("Revision", made.revision or ""),
        ("Weights' fingerprint", made.fingerprint or ""),
        ("Architecture", made.architecture),
        ("Data type", made.dtype),
        ("Quantisation", _mapping(made.quantization)),
        ("Quantised modules", _modules(made)),
        ("Bits per weight", _bits(made)),
        ("Quantised share", _share(made)),
        ("Size of weights", "" if not made.weight_bytes else numbers.size(made.weight_bytes)),
        ("Device", made.device),
        ("Engine", made.engine),
        ("Self-check", made.engine_note),
        *_placed(made),
        ("Batch size", made.batch_size),
        ("Versions", _mapping(made.versions)),
    ]


def _placed(made: Provenance) -> list[Fact]:
    """Where weights lay, and whether they were unpacked, once or at every turn."""
    if made.placement != "streamed":
        lay = [("Placement", f"on {made.placement}, consecutive layers on each")] if made.placement else []
        return [*lay, ("Weights dequantised once for scoring", "yes" if made.materialized else "")]
    unpacked = ", and dequantised layer by layer" if made.materialized else ""
    return [("Placement", f"streamed from host memory layer by layer{unpacked}")]


def _bits(made: Provenance) -> str:
    if made.bits_per_weight is None:
        return ""
    layers = f"{numbers.significant(made.bits_per_weight)} in the quantised layers"
    whole = "" if made.bits_overall is None else f", {numbers.significant(made.bits_overall)} over the model"
    return layers + whole


def _share(made: Provenance) -> str:
    share = made.quantised_share
    if share is None:
        return ""
    told = numbers.percent(share, limits=(ENOUGH_QUANTISED,))
    return f"{told} of the weights, not counting embeddings and head"


def _modules(made: Provenance) -> str:
    if not made.modules:
        return "none" if made.linears else ""
    kinds = ", ".join(f"{number} {name}" for name, number in made.modules.items())
    return f"{kinds}; {made.linears} linear layers in all" if made.linears else kinds


def _mapping(values: Mapping[str, Any]) -> str:
    """A mapping on one line, nested values as JSON."""
    return ", ".join(f"{key} {_value(value)}" for key, value in values.items())


def _value(value: object) -> str:
    if isinstance(value, dict | list | tuple):
        whole = json.dumps(value, ensure_ascii=False, default=str)
        return whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}… ({_leaves(value)} in all)"
    return option_text(value)


def _leaves(value: object) -> int:
    """How many values a nested one holds, an empty mapping being one."""
    parts = list(value.values()) if isinstance(value, dict) else value
    return sum(map(_leaves, parts)) if isinstance(parts, list | tuple) and parts else 1


def run_facts(run: Run) -> tuple[Fact, ...]:
    """The run's own facts: what, when, by which version; how, where qeval itself scored it."""
    datasets = sorted({cell.dataset for result in run.results for cell in result.cells if cell.dataset})
    described = f": {run.suite.description}" if run.suite.description else ""
    facts = [
        ("Run", run.id),
        ("Created", run.created),
        ("Model", run.model),
        ("Suite", run.suite.name + described),
        ("Source", run.source),
        ("qeval", run.qeval_version),
        *(_settings(run) if run.source == OWN else ()),
        (
            "Datasets",
            "; ".join([*datasets[:_MOST_DATASETS], *(["…"] if len(datasets) > _MOST_DATASETS else [])]),
        ),
    ]
    return tuple((label, value) for label, value in facts if value)


_WRITING = {
    "max_gen_toks": "Most tokens of a text",
    "repeats": "Texts per item",
    "temperature": "Temperature",
    "think_end": "Thinking ends at",
}
"""What the settings that concern texts which a model writes are called."""


def _settings(run: Run) -> tuple[Fact, ...]:
    settings = run.settings
    return (
        ("Seed", str(settings.seed)),
        ("Limit", "" if settings.limit is None else f"{settings.limit} items per task"),
        ("Requested dtype", settings.dtype),
        ("Requested device", settings.device),
        ("Requested placement", "" if settings.placement == "auto" else settings.placement),
        ("GPUs per variant", str(settings.gpus) if settings.gpus > 1 else ""),
        ("GPU memory allowed", numbers.size(settings.gpu_memory) if settings.gpu_memory else ""),
        ("Requested batch size", settings.batch_size),
        ("Requested engine", settings.engine),
        ("Chat template", "applied" if settings.chat_template else "not applied"),
        *([("Perplexities", "of texts inside the chat template (framed)")] if settings.framed else []),
        *(
            (label, str(getattr(settings, name)))
            for name, label in _WRITING.items()
            if getattr(settings, name) is not None
        ),
    )


_IMPORTED = " (import the run first, with qeval import: that command is not kept in it)"
_INCOMPLETE = " (incomplete: --redact left paths out)"


@dataclass(frozen=True)
class Asked:
    """The words that asked for a report: what it compares, with which baseline, from where on a difference
    matters, what is allowed, where it has verdicts, and whether earlier runs are shown.
    None of what was left open."""

    compared: tuple[str, ...] = ()
    margin: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    history: bool = False


NOTHING_ASKED = Asked()


def asked_of(
    evidence: Evidence,
    baseline: str | None,
    rules: tuple[str, ...] = (),
    *,
    any_model: bool = False,
    history: bool = False,
) -> Asked:
    """The words for a report on this evidence; `baseline` is None where the run's own was left, `any_model`
    says whether different models may be compared."""
    margin = evidence.margin
    chosen = () if baseline is None else ("--baseline", evidence.run.baseline)
    return Asked(
        (*chosen, *(("--allow-different-models",) if any_model else ())),
        () if margin == Margin() else ("--margin", margin.typed),
        rules,
        history,
    )


def commands(run: Run, asked: Asked = NOTHING_ASKED, joined: Sequence[Run] = ()) -> tuple[Fact, ...]:
    """The exact commands that make the run, or the `joined` ones, and its reports again, as they were `asked`
    for; without paths that were left out, which is said."""
    runs = joined or (run,)
    made = "\n".join(
        dict.fromkeys(shlex.join(next_steps.scoring(one.command)) for one in runs if one.command)
    )
    imported = any(one.source != OWN and not one.command for one in runs)
    left_out = any(is_redacted(one) for one in runs)
    where = () if left_out else next_steps.runs_dir_words(run.command)
    name, *others = dict.fromkeys(one.id for one in runs)
    words = (*others, *where, *asked.compared)
    earlier = ("--history",) if asked.history else ()
    install, note = installed.same_version(run.qeval_version)
    steps = [
        (f"Install the same version{f' ({note})' if note else ''}", install),
        (f"Make the run{'s' if others else ''}{_INCOMPLETE if left_out else ''}", made),
        (
            f"Make this report{_IMPORTED if imported else ''}",
            next_steps.report(name, (*words, *asked.margin, *asked.rules, *earlier)),
        ),
        *(
            [("Judge it", next_steps.gate(name, run.suite.name, (*words, *asked.margin), asked.rules))]
            if len(run.results) > 1
            else []
        ),
    ]
    return tuple((label, text) for label, text in steps if text)
