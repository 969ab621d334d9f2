"""How long fidelity will take beside a suite on a CPU, by the windows of its protocols."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qeval.base.errors import QevalError
from qeval.base.fidelity import Stream
from qeval.base.messages import Job
from qeval.base.work import Work
from qeval.load.model import load_tokenizer
from qeval.score.engine.memory import CPU_BUDGET
from qeval.score.fidelity.inputs import beginning
from qeval.score.fidelity.passes import MOST_WINDOWS
from qeval.score.fidelity.session import FLOOR_TOKENS
from qeval.score.fidelity.streams import stream_of
from qeval.score.forecast import FLOAT, Shape, Speed
from qeval.score.harness.door import longest


def expected(job: Job, model: Shape, speed: Speed) -> float:
    """Seconds of all that a job asks of fidelity, but for traces, whose answers nobody knows yet; 0 on a GPU,
    and where a text cannot be had, as is said when its turn comes."""
    asked = job.fidelity
    protocols = [] if asked is None or speed.gpu else [one for one in asked.protocols if one.kind != "trace"]
    if asked is None or not protocols:
        return 0.0
    mirror = Path(job.settings.datasets_dir) if job.settings.datasets_dir else None
    baseline = job.variant.name == asked.name
    try:
        tokenizer, config = load_tokenizer(
            job.variant, cache_dir=Path(job.cache_dir), trust_remote_code=job.settings.trust_remote_code
        )
        most = longest(config, tokenizer)
        streams = [stream_of(one, tokenizer, mirror, most) for one in protocols]
    except QevalError:
        return 0.0
    return sum(seconds(stream, model, speed, baseline=baseline) for stream in streams)


def seconds(stream: Stream, model: Shape, speed: Speed, *, baseline: bool) -> float:
    """Those of one stream: of the baseline what enters its head, and two floors on the first windows; of
    another variant all positions against it. Each measurement proves its head on a window first."""
    if not baseline:
        return _fed(stream, model, speed) + _compared(stream, model, speed) + _proved(stream, model, speed)
    part = beginning(stream, FLOOR_TOKENS["cpu"])
    floor = _fed(part, model, speed) + _compared(part, model, speed) + _proved(stream, model, speed)
    return _fed(stream, model, speed) + _proved(stream, model, speed) + 2 * floor


def _fed(stream: Stream, model: Shape, speed: Speed) -> float:
    """The windows through the body, as many at once as a chunk has room for, filled up to the longest."""
    lengths = stream.ends - stream.starts - 1
    batch = int(np.clip(CPU_BUDGET // (int(lengths.max()) + 1), 1, MOST_WINDOWS))
    work = Work()
    for at in range(0, len(lengths), batch):
        some = lengths[at : at + batch]
        wide = int(some.max())
        work = work.and_(Work(fed=len(some) * wide, seen=len(some) * wide * (wide + 1) // 2))
    return speed.seconds(model, work, speed.plain)


def _compared(stream: Stream, model: Shape, speed: Speed) -> float:
    """Both heads at each position, and their logits side by side."""
    return 4.0 * model.width * model.vocabulary * stream.n / speed.compared


def _proved(stream: Stream, model: Shape, speed: Speed) -> float:
    """The first window twice through the body, and its logits of two ways side by side."""
    first = stream.beginning(1)
    read = 2 * FLOAT * model.passed / speed.reading
    return 2 * _fed(first, model, speed) + read + _compared(first, model, speed)
