"""The toy's fidelity: an invented stream, and positions that move as far as its schemes are invented to."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qeval.base.fidelity import Measured, Passage, Positions, Role, Stream
from qeval.base.hashing import digest
from qeval.base.invented import INVENTED
from qeval.base.messages import FidelityJob, Job
from qeval.base.protocols import Protocol
from qeval.store import fidelity as stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DOCUMENTS, _TOKENS, _VOCABULARY = 24, 65, 1000
_MOVED = {"fp32": 0.0, "fp16": 0.0, "bf16": 0.0005, "bnb8": 0.002, "bnb4": 0.03, "gptq": 0.025}
_FLOOR = 0.00002


def measure(job: Job) -> None:
    """Invent and store what the job asks for."""
    asked = job.fidelity
    assert asked is not None  # noqa: S101 - the caller looked
    for protocol in asked.protocols:
        if job.variant.name == asked.name:
            for role in ("packing", "plain"):
                _store(job, asked, protocol, role)
        else:
            _store(job, asked, protocol, "candidate")


def _store(job: Job, asked: FidelityJob, protocol: Protocol, role: Role) -> None:
    run = Path(job.runs_dir) / job.run_id
    tokens = stream(protocol)
    made_of = [job.identity, asked.baseline, tokens.sha256, protocol.name, role, "toy"]
    key = digest(made_of)
    if stored.whole(run, key) is not None:
        return
    kl = _MOVED.get(job.variant.scheme.kind, 0.03) if role == "candidate" else _FLOOR
    found = invented(tokens, kl, seed=f"{job.variant.name} {role} {protocol.name}")
    one = Measured(
        key=key,
        protocol=protocol,
        variant=job.variant.name,
        baseline=asked.name,
        role=role,
        stream=tokens.sha256,
        n=tokens.n,
        n_available=tokens.available,
        windows=len(tokens),
        vocabulary=_VOCABULARY,
        cut=0,
        cut_baseline=0,
        batch=1,
        dtype="none",
        device="none",
        variant_digest=digest(job.identity),
        baseline_digest=digest(asked.baseline),
        created=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        worst=_worst(tokens, found) if role == "candidate" else (),
        notes=(INVENTED,),
    )
    stored.add(run, one, found, tokens)


def stream(protocol: Protocol) -> Stream:
    """An invented stream of documents, the same for everybody."""
    draw = _draw(f"stream {protocol.kind} {protocol.file}")
    count = min(_DOCUMENTS, protocol.windows or _DOCUMENTS)
    return Stream(
        tokens=draw.integers(_VOCABULARY, size=count * _TOKENS).astype(np.int32),
        ends=np.arange(1, count + 1, dtype=np.int64) * _TOKENS,
        first=np.ones(count, np.int64),
        document=np.repeat(np.arange(count, dtype=np.int32), _TOKENS),
        available=_DOCUMENTS * (_TOKENS - 1),
    )


def invented(tokens: Stream, kl: float, seed: str) -> Positions:
    """Positions of a stream with about such a mean divergence; exactly none for 0."""
    n, draw = tokens.n, _draw(seed)
    base = _draw(f"baseline {tokens.sha256}")
    log_p = -base.gamma(2.0, 1.2, size=n)
    confidence = np.clip(base.beta(1.2, 1.0, size=n), 0.01, 0.999)
    top = base.integers(_VOCABULARY, size=n)
    by_document = np.exp(draw.normal(0.0, 0.3, size=len(tokens)))[
        np.repeat(np.arange(len(tokens)), tokens.counts)
    ]
    size = kl * by_document * draw.exponential(1.0, size=n) * 4 * confidence * (1 - confidence) * 1.5
    moved = draw.normal(0.0, 1.0, size=n) * np.sqrt(2 * size) - size
    other = draw.random(n) < np.minimum(2 * size, 0.5)
    return Positions(
        kl=_float(size),
        kl_reverse=_float(size * 1.05),
        log_p=_float(log_p),
        log_q=_float(np.minimum(log_p + moved, -1e-6)),
        top_p=top.astype(np.int32),
        top_q=np.where(other, (top + 1) % _VOCABULARY, top).astype(np.int32),
        rank=other.astype(np.int32),
        entropy=_float(-np.log(confidence) + 1),
        confidence=_float(confidence),
        ordered=draw.random(n) >= np.minimum(8 * size, 0.8),
    )


def _worst(tokens: Stream, found: Positions) -> tuple[Passage, ...]:
    """The windows that moved furthest, with an invented text."""
    parts = np.split(found.kl, np.cumsum(tokens.counts)[:-1])
    means = [float(part.mean()) for part in parts]
    order = np.argsort(means)[::-1][:10].tolist()
    return tuple(
        Passage(
            window, 1, means[window], int(tokens.counts[window]), f"the end of toy text {window}.", "This is "
        )
        for window in order
    )


def _draw(text: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def _float(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)
