"""Benchmarks of the Hugging Face Hub whose ids are known from a source: what `.eval_results` may name.

A data set is a benchmark when the Hub lists it and its eval.yaml names tasks; a result must name one of these
by its id. The Hub's own documentation (https://huggingface.co/docs/hub/eval-results) lists four: GPQA, GSM8K,
MMLU-Pro and HLE, the last of which lm-eval has no task for. An id that nobody published is left out, since a
wrong one would put a number on a leaderboard that it is none of.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from qeval.compare.rows import Row

CONVERTER = (
    "https://github.com/evaleval/every_eval_ever/blob/21f59de7e98df374b716f411961f073d1a9c81c4"
    "/tools/hf-community-evals/community_evals_converter.py"
)
"""EvalEval's converter to `.eval_results`, which has the ids that the Hub's leaderboards are fed by."""


@dataclass(frozen=True)
class Benchmark:
    """A task of a benchmark: the data set's id and the task's in its eval.yaml; `rows` are globs of the rows
    (lm-eval's names) that ask all of its questions; `source` says where the id is told."""

    dataset: str
    task_id: str
    rows: tuple[str, ...]
    source: str


BENCHMARKS = (
    Benchmark("Idavidrein/gpqa", "diamond", ("gpqa_diamond_*",), CONVERTER),
    Benchmark("TIGER-Lab/MMLU-Pro", "mmlu_pro", ("mmlu_pro",), CONVERTER),
    Benchmark(
        "openai/gsm8k", "gsm8k", ("gsm8k", "gsm8k_cot", "gsm8k_cot_zeroshot", "gsm8k_cot_llama"), CONVERTER
    ),
)
"""(The documentation's example calls GPQA's task gpqa_diamond; its eval.yaml, as EuroEval's tests quote it,
and the converter call it diamond.)"""


def benchmark_of(row: Row, dataset: str | None) -> Benchmark | None:
    """The benchmark that a row of a data set is, None where none with a known id is meant. Means over
    subjects are none: leaderboards weigh questions alike."""
    if row.kind != "accuracy" or row.level not in {"task", "pooled"}:
        return None
    return next(
        (
            one
            for one in BENCHMARKS
            if one.dataset == dataset and any(fnmatch.fnmatchcase(row.id, glob) for glob in one.rows)
        ),
        None,
    )
