"""Makes small files as a release of lm-eval writes them, for tests/fixtures/elsewhere. Not run by the tests.

    pip install --no-deps --target /tmp/lm0.4.0 lm-eval==0.4.0
    PYTHONPATH=/tmp/lm0.4.0 python tests/helpers/elsewhere/make_lm_eval.py 0.4.0 tests/fixtures/elsewhere

The release's own command writes them (0.3.0's package has none: there it is what its main.py does, the
results as JSON). Only what old releases want of newer libraries is put in their place, the model is one of
our own, and what tells of the machine is taken out of the results.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tempfile
import types
import unittest.mock
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from toy_questions import LETTERS, MODELS, log_likelihood, write_data, written

TASKS = "toy_letters,toy_sums,toy_pages"
_NOT_HERE = (
    "pycountry",
    "sqlitedict",
    "openai",
    "rouge_score",
    "zstandard",
    "jsonlines",
    "tqdm_multiprocess",
)
_OF_THE_MACHINE = ("pretty_env_info", "upper_git_hash", "git_hash")


def main(version: str, out: Path) -> None:
    """Write the files of all models below out/lm-eval-VERSION."""
    place = out.resolve() / f"lm-eval-{version}"
    shutil.rmtree(place, ignore_errors=True)
    _fill_in()
    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(shutil.copytree(Path(__file__).parent / "tasks", f"{folder}/tasks"))
        write_data(tasks)
        os.chdir(tasks)
        os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"
        for name, arguments in MODELS.items():
            (_first if version.startswith("0.3") else _command)(arguments, place / name, tasks)
    for file in place.rglob("*.json"):
        _strip(file)


def _fill_in() -> None:
    """What releases import at once and newer libraries lack, or fetch."""
    import datasets
    import evaluate
    import transformers

    for module, name in ((transformers, "AutoModelForVision2Seq"), (datasets, "load_metric")):
        if not hasattr(module, name):
            setattr(module, name, lambda *_, **__: None)
    for name in ("transformers.data.metrics", "transformers.data.metrics.squad_metrics", *_NOT_HERE):
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = unittest.mock.MagicMock()
    evaluate.load = lambda *_, **__: types.SimpleNamespace(compute=lambda **_: {})


def _answers(requests, how):
    """What a method of the model gives for requests of any release."""
    return [how(*getattr(request, "args", request)) for request in requests]


def _model(base, arguments: str):
    """A class of models that answer by their arguments alone."""

    class Toy(base):
        tokenizer_name = "toy"
        batch_size = 1

        @classmethod
        def create_from_arg_string(cls, *_, **__):
            return cls()

        @classmethod
        def create_from_arg_obj(cls, *_, **__):
            return cls()

        def loglikelihood(self, requests, **_):
            return _answers(requests, lambda a, b: (log_likelihood(arguments, a, b), False))

        def loglikelihood_rolling(self, requests, **_):
            return _answers(
                requests, lambda text, *_: sum(log_likelihood(arguments, "", word) for word in text.split())
            )

        def generate_until(self, requests, **_):
            return _answers(requests, lambda text, *_: written(arguments, text))

        greedy_until = generate_until

    return Toy


def _command(arguments: str, place: Path, tasks: Path) -> None:
    """The release's own command."""
    from lm_eval.api import registry
    from lm_eval.api.model import LM

    known = getattr(registry, "MODEL_REGISTRY", None)
    known = registry.model_registry if known is None else known
    toy = _model(LM, arguments)
    try:
        known["toy"] = toy
    except TypeError:
        known.register("toy", toy)
    sys.argv = ["lm_eval", "--model", "toy", "--model_args", arguments, "--tasks", TASKS,
                "--include_path", str(tasks), "--output_path", str(place), "--log_samples"]  # fmt: skip
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


def _first(arguments: str, place: Path, _: Path) -> None:
    """As main.py of 0.3.0: a task of our own, and the results as JSON."""
    from lm_eval import base, evaluator, models, tasks

    class Letters(base.MultipleChoiceTask):
        VERSION = 1

        def __init__(self):
            pass

        def has_training_docs(self):
            return False

        has_validation_docs = has_training_docs

        def has_test_docs(self):
            return True

        def test_docs(self):
            return [
                {"query": f"{row['question']}\nAnswer:", "choices": row["choices"], "gold": row["answer"]}
                for row in LETTERS
            ]

        def doc_to_text(self, doc):
            return doc["query"]

        def fewshot_context(self, doc, *_, **__):
            return doc["query"]

    models.MODEL_REGISTRY["toy"] = _model(base.LM, arguments)
    tasks.TASK_REGISTRY["toy_letters"] = Letters
    found = evaluator.simple_evaluate(
        model="toy", model_args=arguments, tasks=["toy_letters"], num_fewshot=0, no_cache=True
    )
    place.mkdir(parents=True)
    (place / "results.json").write_text(json.dumps(found, indent=2))


def _strip(file: Path) -> None:
    table = json.loads(file.read_text())
    if isinstance(table, dict):
        kept = {name: value for name, value in table.items() if name not in _OF_THE_MACHINE}
        file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
