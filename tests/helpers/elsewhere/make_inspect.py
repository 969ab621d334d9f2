"""Makes small logs as inspect writes them, for tests/fixtures/elsewhere. Not run by the tests.

    python -m venv /tmp/inspect && /tmp/inspect/bin/pip install inspect-ai==0.3.285
    /tmp/inspect/bin/python tests/helpers/elsewhere/make_inspect.py tests/fixtures/elsewhere

Own questions, answered by inspect's mock model; run from a directory outside any repository, so that no log
names one.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import inspect_ai
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log, write_eval_log
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import choice, includes, match
from inspect_ai.solver import generate, multiple_choice

sys.path.insert(0, str(Path(__file__).parent))
from toy_questions import LETTERS, SUMS, chance, written


@task
def toy_letters():
    rows = [
        Sample(id=at, input=row["question"], choices=row["choices"], target="AB"[row["answer"]])
        for at, row in enumerate(LETTERS)
    ]
    return Task(dataset=rows, solver=multiple_choice(), scorer=choice())


@task
def toy_sums():
    rows = [
        Sample(id=f"sum-{at}", input=row["question"], target=row["answer"]) for at, row in enumerate(SUMS)
    ]
    return Task(dataset=rows, solver=generate(), scorer=[includes(), match()], epochs=2)


def answer(model: str, text: str) -> str:
    """A letter, or a sum."""
    if "ANSWER" in text:
        return f"ANSWER: {'A' if chance(model, text) < 0.5 else 'B'}"
    return written(model, text)


def main(out: Path) -> None:
    """Write the logs of both models, in both of inspect's formats."""
    place = out.resolve() / f"inspect-{version('inspect_ai')}"
    shutil.rmtree(place, ignore_errors=True)
    for name in ("fp16", "int4"):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)

            def outputs(messages, *_, name=name):
                output = ModelOutput.from_content("mockllm/model", answer(name, messages[-1].text))
                output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
                return output

            model = get_model(f"mockllm/{name}", custom_outputs=outputs)
            logs = inspect_ai.eval([toy_letters(), toy_sums()], model=model, log_dir=folder,
                        display="none", max_tasks=1)  # fmt: skip
            for log in logs:
                assert log.status == "success", log.status
                for form in ("eval", "json"):
                    stem = Path(log.location).stem
                    _write(read_eval_log(log.location), place / form / name / f"{stem}.{form}")


def _write(log, file: Path) -> None:
    """By inspect's own writer, without what tells of the machine, and without the steps on the way."""
    log.eval.task_file = log.eval.revision = None
    for sample in log.samples or ():
        sample.events = []
    file.parent.mkdir(parents=True, exist_ok=True)
    write_eval_log(log, str(file))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
