"""What fidelity is predicted to take."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qeval.base.errors import QevalError
from qeval.base.fidelity import Stream
from qeval.base.protocols import Protocol
from qeval.base.records import Variant
from qeval.load.rates import GPUS
from qeval.load.schemes import parse_schemes
from qeval.score import forecast, probe
from qeval.score.fidelity import prospect

DEMO = forecast.Shape(1.062e8, 576, 1536, 30, 49152, 9, 3)
MEASURED = probe.Parts(body=1.38e11, attention=7.2e10, head=9.3e10, compared=5.8e10, reading=4.8e9)


def stream(windows: int, length: int) -> Stream:
    return Stream(
        tokens=np.zeros(windows * length, np.int32),
        ends=np.arange(1, windows + 1, dtype=np.int64) * length,
        first=np.ones(windows, np.int64),
        document=np.zeros(windows * length, np.int32),
        available=windows * (length - 1),
    )


@pytest.mark.parametrize(("baseline", "spent"), [(True, 19.5), (False, 16.8)])
def test_the_demo_on_its_prose(baseline: bool, spent: float) -> None:
    """24 windows of 169 to 191 tokens, on one thread; the seconds are the processor's."""
    speed = forecast.of_cpu(MEASURED, 5.0)
    found = prospect.seconds(stream(24, 178), DEMO, speed, baseline=baseline)
    assert abs(found - spent) < 0.3 * spent
    twice = prospect.seconds(stream(24, 178), DEMO, forecast.of_cpu(MEASURED, 5.0, 0.5), baseline=baseline)
    assert twice == pytest.approx(2 * found)


def test_each_position_counts_of_a_candidate_and_only_the_floors_of_the_baseline() -> None:
    speed = forecast.of_cpu(MEASURED, 5.0)
    slower = dataclasses.replace(speed, compared=speed.compared / 2)
    more = [
        prospect.seconds(stream(100, 178), DEMO, slower, baseline=baseline)
        - prospect.seconds(stream(100, 178), DEMO, speed, baseline=baseline)
        for baseline in (True, False)
    ]
    each = 4 * DEMO.width * DEMO.vocabulary / speed.compared
    assert more == pytest.approx([each * 177 * (2 * 5 + 3), each * 177 * (100 + 1)])  # 5 windows of 1024


def test_nothing_is_predicted_of_a_gpu_of_traces_and_of_texts_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_text(*_: object, **__: object) -> None:
        raise QevalError("There is none.", "")

    [(name, scheme)] = parse_schemes("fp16")
    speed = forecast.of_cpu(MEASURED, 5.0)

    def seconds(kind: str, speed: forecast.Speed = speed) -> float:
        asked = SimpleNamespace(protocols=(Protocol(kind, kind),), name=name)  # type: ignore[arg-type]
        settings = SimpleNamespace(datasets_dir=None, trust_remote_code=False)
        job = SimpleNamespace(
            fidelity=asked, settings=settings, variant=Variant(name, "demo", scheme), cache_dir=str(tmp_path)
        )
        return prospect.expected(job, DEMO, speed)  # type: ignore[arg-type]

    monkeypatch.setattr(prospect, "load_tokenizer", lambda *_, **__: (None, None))
    monkeypatch.setattr(prospect, "longest", lambda *_: 8192)
    monkeypatch.setattr(prospect, "stream_of", lambda *_: stream(3, 100))
    assert seconds("prose") > 0
    assert seconds("prose", forecast.of_gpu(GPUS["h100"])) == 0
    assert seconds("trace") == 0
    monkeypatch.setattr(prospect, "stream_of", no_text)
    assert seconds("prose") == 0
