"""A run as model cards for the Hugging Face Hub: what a variant is, how it is loaded, and its scores."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qeval.base.markdown import escape
from qeval.base.names import scheme_text, slugged
from qeval.base.numbers import plain
from qeval.base.records import Provenance, Result
from qeval.base.text import visible
from qeval.compare.rows import Row, score_of
from qeval.exchange.hub import dataset_of, is_hub_id, note_of, revision_of, value_of, yaml_text
from qeval.exchange.source import Said, Source

if TYPE_CHECKING:
    from qeval.exchange.source import File

_LEVELS = {"macro": " (unweighted mean of subjects)", "pooled": " (all items)"}
_PLAIN = {"fp32", "fp16", "bf16"}
"""Schemes that quantise nothing."""
_IMPORTED = {"imported", "published"}
"""Schemes of what others measured, which tell nothing of weights."""
_SIMULATED = {"rtn"}
"""Schemes that are always simulated; others say so in their notes."""
_NOTHING_TO_LOAD = (
    "Nothing can be saved or loaded: {} is simulated. The weights were rounded to its grid and scored in"
    " plain numbers, to learn what packing them would cost; there is no file of them."
)
_GROUPS = ("group_size", "q_group_size", "blocksize", "weights_block_size")
"""What libraries call the weights that share a scale."""
_BITS = {"load_in_4bit": 4, "load_in_8bit": 8}
_CALIBRATION = re.compile(r"with (\d+ samples of \d+ tokens of calibration text \([^)]*\))")
_LOAD = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("<this repository>", device_map="auto")
tokenizer = AutoTokenizer.from_pretrained("<this repository>")
```"""


def to_model_card(source: Source) -> Iterator[File]:
    """`NAME/README.md` for each variant that has scores."""
    for place, result in enumerate(source.run.results):
        if result.cells:
            yield f"{place}-{slugged(result.variant.name)}/README.md", _card(source, result)


def _card(source: Source, result: Result) -> str:
    run, variant = source.run, result.variant
    rows = [row for row in source.rows if row.level != "average" and score_of(run, result, row)]
    intro = f"Scores of {scheme_text(variant.scheme)} of {variant.model}, measured by qeval."
    parts = [
        f"# {escape(variant.name)}",
        escape(intro),
        *_trust(source, result),
        *_how(result),
        "## Scores",
        "\n".join(
            "- "
            + escape(
                f"{row.title} ({row.measure}): {value_of(source, result, row)}{note_of(source, result, row)}"
            )
            for row in rows
        ),
        *_made_by(source),
    ]
    return f"---\n{_metadata(source, result, rows)}---\n\n" + "\n\n".join(parts) + "\n"


def _trust(source: Source, result: Result) -> Iterator[str]:
    """The verdict, and what is to be known before the numbers are trusted, as a report says them."""
    said = source.said.get(result.variant.name, Said())
    if said.verdict:
        yield escape(f"Against {source.run.baseline}: {said.verdict}")
    if said.cautions:
        yield "## Before you trust these numbers"
        yield "\n".join(f"- {escape(one)}" for one in said.cautions)


def _how(result: Result) -> Iterator[str]:
    """What the weights are, and how they are loaded."""
    facts = [(label, text) for label, text in _facts(result) if text]
    if facts:
        yield "## Quantisation" if quantised(result) else "## Weights"
        rows = "\n".join(f"| {label} | {escape(text)} |" for label, text in facts)
        yield f"| what | as it was loaded |\n|---|---|\n{rows}"
    if _simulated(result):
        yield "## How to load it"
        yield escape(_NOTHING_TO_LOAD.format(result.variant.scheme.kind))
    elif quantised(result) or is_hub_id(result.variant.model):
        yield "## How to load it"
        yield _LOAD
        yield from _needs(result.provenance)


def _simulated(result: Result) -> bool:
    """Whether weights were rounded and held in plain numbers, so that there is no checkpoint of them."""
    kind, found = result.variant.scheme.kind, result.provenance
    notes = found.notes if found else ()
    return kind in _SIMULATED or any(note.startswith(f"{kind} is simulated:") for note in notes)


def quantised(result: Result) -> bool:
    """Whether a variant's weights are quantised: a run refuses a scheme that quantised nothing, and of what
    was imported the configuration tells it."""
    kind, found = result.variant.scheme.kind, result.provenance
    return kind not in _PLAIN and (kind not in _IMPORTED or bool(found and found.quantization))


def _facts(result: Result) -> Iterator[tuple[str, str]]:
    """What is known of the weights; "" for what is not."""
    found = result.provenance or Provenance(result.variant.model)
    config = found.quantization
    yield "method", str(config.get("quant_method") or result.variant.scheme.kind)
    yield "scheme, as qeval reads it", scheme_text(result.variant.scheme)
    yield "bits", _bits(result)
    yield (
        "bits of a weight with its scales",
        "" if found.bits_per_weight is None else plain(found.bits_per_weight),
    )
    yield (
        "bits of a weight over the whole model",
        "" if found.bits_overall is None else plain(found.bits_overall),
    )
    yield "group size", next((str(config[key]) for key in _GROUPS if config.get(key) is not None), "")
    yield "calibration", _calibration(result)
    modules = ", ".join(f"{count} {name}" for name, count in found.modules.items())
    yield "quantised modules", modules
    yield "architecture", found.architecture
    yield "commit that was loaded", found.revision or ""


def _bits(result: Result) -> str:
    config = result.provenance.quantization if result.provenance else {}
    told = config.get("bits") or result.variant.scheme.options.get("bits")
    return str(told or next((bits for key, bits in _BITS.items() if config.get(key)), ""))


def _calibration(result: Result) -> str:
    """What it was calibrated on, as the run tells it: qeval knows it of what it quantised itself."""
    notes = result.provenance.notes if result.provenance else ()
    found = next((one for note in notes if (one := _CALIBRATION.search(note))), None)
    if found is not None:
        return found[1]
    return "not known: a ready checkpoint" if result.variant.scheme.checkpoint else ""


def _needs(found: Provenance | None) -> Iterator[str]:
    versions = {} if found is None else found.versions
    needed = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "lm_eval")
    if needed:
        yield escape(f"It was loaded with {needed}.")


def _made_by(source: Source) -> Iterator[str]:
    run = source.run
    told = f"Differences are from {run.baseline}, on the same items." if run.baseline else ""
    version = f"qeval {run.qeval_version}".strip()
    yield "## How it was measured"
    seen = f" The run: <{source.url}>" if source.url else ""
    yield escape(f"By {version}, {run.created}. {told}".strip()) + seen
    if run.command:
        yield _fenced(visible(shlex.join(run.command)))


def _fenced(text: str) -> str:
    """A text as a block of code, which nothing in it ends."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return f"{fence}\n{text}\n{fence}"


def _metadata(source: Source, result: Result, rows: list[Row]) -> str:
    """The card's YAML. Each row is made into the index by itself: put together, rows of one data set (a group
    and its mean) would become one entry under the name of the first."""
    from huggingface_hub.repocard_data import eval_results_to_model_index

    name = result.variant.name
    parts = [eval_results_to_model_index(name, [_eval_result(source, result, row)])[0] for row in rows]
    index = {"name": name, "results": [entry for part in parts for entry in part["results"]]}
    return yaml_text({**_head(result), "model-index": [index]})


def _head(result: Result) -> dict[str, Any]:
    """What the Hub sorts models by; of a simulated scheme, which nobody can load, only that it is one."""
    kind = result.variant.scheme.kind
    if _simulated(result):
        return {"tags": ["simulated", kind]}
    base = {"base_model": result.variant.model} if _on_the_hub(result) else {}
    relation = {"base_model_relation": "quantized"} if quantised(result) and base else {}
    tags = [*(["quantized"] if quantised(result) else []), kind]
    return {
        **base,
        **relation,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": tags,
    }


def _on_the_hub(result: Result) -> bool:
    """Whether the model was named by an id of the Hub; a directory's name would be none."""
    found = result.provenance
    return is_hub_id(result.variant.model) and not (found and found.fingerprint and not found.revision)


def _eval_result(source: Source, result: Result, row: Row) -> Any:
    """A row as the Hub's record; the difference from the baseline stands in the metric's name."""
    from huggingface_hub import EvalResult

    first = row.members[0]
    return EvalResult(
        task_type="text-generation",
        task_name="Text generation",
        dataset_name=row.id + _LEVELS.get(row.level, ""),
        dataset_type=dataset_of(result, row) or row.id,
        dataset_revision=revision_of(result, row),
        dataset_args={"num_few_shot": first.num_fewshot},
        metric_type=first.metric.partition(",")[0] or "score",
        metric_value=value_of(source, result, row),
        metric_name=f"{row.measure}{note_of(source, result, row)}",
        source_url=source.url or None,
        source_name="qeval" if source.url else None,
    )
