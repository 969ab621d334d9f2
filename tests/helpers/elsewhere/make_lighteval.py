"""Makes small files as a release of lighteval writes them, for tests/fixtures/elsewhere. No test runs it.

    pip install --no-deps --target /tmp/le0.13.0 lighteval==0.13.0
    PYTHONPATH=/tmp/le0.13.0 python tests/helpers/elsewhere/make_lighteval.py 0.13.0 tests/fixtures/elsewhere

The release's own tracker collects and writes results and details; its models, tasks and metrics, which want
many packages, are put aside: what they would hand to it is made here from our own questions.
"""

from __future__ import annotations

import collections
import dataclasses
import importlib.abc
import importlib.machinery
import inspect
import math
import shutil
import sys
import types
import unittest.mock
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from toy_questions import LETTERS, MODELS, SUMS, log_likelihood, written

_ASIDE = ("lighteval.metrics", "lighteval.models.abstract_model", "lighteval.tasks.lighteval_task", "git",
          "tensorboardX", "aenum", "pytablewriter", "colorama", "termcolor", "colorlog")  # fmt: skip


class _Aside(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for modules that are put aside."""

    def find_spec(self, name, *_):
        aside = any(name == one or name.startswith(f"{one}.") for one in _ASIDE)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if aside else None

    def create_module(self, spec):
        module = unittest.mock.MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__name__ = [], spec, spec.name
        return module

    def exec_module(self, module):
        pass


def main(version: str, out: Path) -> None:
    """Write the files of all models below out/lighteval-VERSION."""
    place = out.resolve() / f"lighteval-{version}"
    shutil.rmtree(place, ignore_errors=True)
    sys.meta_path.insert(0, _Aside())
    _take_texts()
    for name, arguments in MODELS.items():
        _write(name, arguments, place, version)
    _rename(place)


def _rename(place: Path) -> None:
    """Not every file system takes a | in a name; what downloads such files puts a _ there."""
    for file in [*place.rglob("*|*")]:
        file.rename(file.with_name(file.name.replace("|", "_")))


def _take_texts() -> None:
    """Newer releases of xxhash take no texts."""
    import xxhash

    plain = xxhash.xxh64
    xxhash.xxh64 = lambda value=b"": plain(value.encode() if isinstance(value, str) else value)


def _write(name: str, arguments: str, place: Path, version: str) -> None:
    from lighteval.logging.evaluation_tracker import EvaluationTracker

    tracker = EvaluationTracker(output_dir=str(place / name), save_details=True)
    dtype = arguments.rpartition("=")[2]
    _describe(tracker.general_config_logger, dtype)
    new = tuple(map(int, version.split(".")[:2])) >= (0, 12)
    suite, tail = ("", "") if new else ("community|", "|0")
    _letters(tracker, arguments, f"{suite}toy_letters|0{tail}")
    _sums(tracker, arguments, f"{suite}toy_sums|0{tail}")
    tracker.details_logger.aggregate()
    tracker.save()


def _describe(logger, dtype: str) -> None:
    """What a release is told of the model and the run."""
    logger.model_name = "org/tiny"
    logger.max_samples = None
    logger.lighteval_sha = "?"
    fields = {field.name for field in dataclasses.fields(logger)}
    if "model_dtype" in fields:
        logger.model_dtype, logger.model_sha, logger.config = dtype, "abc123", None
    else:
        told = {"model_name": "org/tiny", "dtype": dtype, "revision": "main", "generation_parameters": {}}
        logger.model_config = types.SimpleNamespace(model_dump=lambda: told)


def _doc(query: str, choices: list[str], gold: int, task: str):
    from lighteval.tasks.requests import Doc

    known = inspect.signature(Doc).parameters
    words = {"query": query, "choices": choices, "gold_index": gold, "task_name": task, "ctx": query}
    doc = Doc(**{name: value for name, value in words.items() if name in known})
    if hasattr(doc, "num_asked_few_shots"):
        doc.num_asked_few_shots = doc.num_effective_few_shots = 0
    return doc


def _log(tracker, task: str, doc, answer, metrics: dict, *, choice: bool) -> None:
    """One sample, in the release's own call."""
    logger = tracker.details_logger
    if "outputs" in inspect.signature(logger.log).parameters:
        from lighteval.metrics import MetricCategory

        mine = MetricCategory.MULTICHOICE if choice else MetricCategory.GENERATIVE
        has = collections.defaultdict(bool, {mine: True})
        logger.log(task, types.SimpleNamespace(has_metric_category=has), doc, answer, metrics)
    else:
        logger.log(task, doc, answer, metrics)
    tracker.metrics_logger.log(task, metrics)


def _letters(tracker, arguments: str, task: str) -> None:
    from lighteval.models import model_output

    for row in LETTERS:
        query = f"{row['question']}\nAnswer:"
        doc = _doc(query, [f" {choice}" for choice in row["choices"]], row["answer"], task)
        scores = [log_likelihood(arguments, query, choice) for choice in doc.choices]
        if hasattr(model_output, "LoglikelihoodResponse"):
            answer = [model_output.LoglikelihoodResponse(result=(score, False)) for score in scores]
            for one in answer:
                one.truncated_tokens_count = one.padded_tokens_count = 0
        else:
            answer = model_output.ModelResponse(
                input=query, logprobs=scores, argmax_logits_eq_gold=[False, False]
            )
        right = scores.index(max(scores)) == row["answer"]
        _log(tracker, task, doc, answer, {"acc": int(right)}, choice=True)
    _aggregate(tracker, task, "acc", len(LETTERS))


def _sums(tracker, arguments: str, task: str) -> None:
    from lighteval.models import model_output

    for row in SUMS:
        doc = _doc(row["question"], [row["answer"]], 0, task)
        text = written(arguments, row["question"])
        if hasattr(model_output, "GenerativeResponse"):
            answer = [model_output.GenerativeResponse(result=[text])]
            answer[0].truncated_tokens_count = answer[0].padded_tokens_count = 0
        else:
            answer = model_output.ModelResponse(input=row["question"], text=[text])
        right = text.strip(".").split()[-1] == row["answer"]
        _log(tracker, task, doc, answer, {"extractive_match": float(right)}, choice=False)
    _aggregate(tracker, task, "extractive_match", len(SUMS))


def _aggregate(tracker, task: str, metric: str, n: int) -> None:
    """As the release's own aggregation, whose metrics are put aside: mean and standard error."""
    values = tracker.metrics_logger.metrics_values[task][metric]
    mean = sum(values) / n
    said = tracker.metrics_logger.metric_aggregated[task]
    said[metric] = mean
    said[f"{metric}_stderr"] = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    tracker.metrics_logger.metric_aggregated["all"][metric] = mean
    tracker.versions_logger.log(task, 0)
    tracker.task_config_logger.tasks_configs[task] = {
        "hf_repo": "org/data",
        "hf_subset": "default",
        "original_num_docs": n,
        "effective_num_docs": n,
        "num_fewshots": 0,
        "version": 0,
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
