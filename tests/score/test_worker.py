"""What the system refuses a worker is a sentence of its variant; the others go on."""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import replace

import pytest

from qeval.base import installed
from qeval.base.errors import UsageError
from qeval.base.records import Task
from qeval.score import toy
from qeval.score.once import refuse_twice

WORDS = ("run", "--model", "toy[items=20]", "--tasks", "arc_easy", "--schemes", "fp16,rtn,bnb4")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/far/away"),
            "The disk that holds /far/away is full.",
        ),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "A disk is full."),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "A disk is full."),
        (
            OSError(errno.EIO, os.strerror(errno.EIO), "/far/away"),
            "/far/away cannot be used: Input/output error.",
        ),
        (
            OSError(errno.EACCES, os.strerror(errno.EACCES), "/far/away"),
            "/far/away cannot be used: Permission",
        ),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/far/away"), "/far/away cannot be used: Read-only"),
    ],
)
def test_a_disk_that_refuses_is_a_sentence_that_names_the_variant(
    qeval, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    score = toy.score

    def refuse(task, scheme, *more):
        if scheme.kind == "rtn":
            raise error
        return score(task, scheme, *more)

    with monkeypatch.context() as patch:
        patch.setattr(toy, "score", refuse)
        told = qeval(*WORDS, code=1).stderr
    assert "unforeseen" not in told
    assert "Traceback" not in told
    [line] = (line for line in told.splitlines() if said in line)
    assert "rtn" in line
    assert "arc_easy" in qeval("show", code=None).stdout
    qeval(*WORDS)


def test_a_cell_tells_the_version_that_its_worker_began_with(qeval, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout may go on while it is scored; the code that runs does not."""
    score = toy.score

    def slowly(*words):
        installed.version = lambda: "later"
        return score(*words)

    monkeypatch.setattr(installed, "version", lambda: "first")
    monkeypatch.setattr(toy, "score", slowly)
    qeval("run", "--model", "toy[items=5]", "--tasks", "arc_easy", "--schemes", "fp16")
    [fp16] = json.loads(qeval("show", "--json").stdout)["variants"]
    [cell] = fp16["cells"]
    assert cell["scored"]["qeval"] == "first"
    assert re.search(r":\d\d\.\d{6}\+00:00$", cell["scored"]["when"])  # versions of one second have an order


def test_what_a_library_calls_an_error_of_the_system_stays_its_own(qeval, monkeypatch) -> None:
    def refuse(*_):
        raise OSError("x is no valid name of a model")

    monkeypatch.setattr(toy, "score", refuse)
    assert "unforeseen happened (OSError: x is no valid name of a model)" in qeval(*WORDS, code=1).stderr


def test_a_task_is_asked_for_once_whatever_its_metric() -> None:
    subject = Task("mmlu_algebra", "acc", group="mmlu")
    refuse_twice((subject, replace(subject, name="mmlu_biology")))
    with pytest.raises(UsageError, match="The task 'mmlu_algebra' is asked for twice"):
        refuse_twice((subject, Task("mmlu_algebra", "acc_norm")))
