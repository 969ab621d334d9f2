"""The rows of fidelity: each number against its definition, the noise floor, and what is never compared."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from qeval.base.fidelity import Measured, Positions, Stream
from qeval.base.protocols import Protocol
from qeval.compare.fidelity import rows_of, summarise, within_noise, without_files

PROSE = Protocol("prose", "prose")


def a_stream(lengths=(5, 4, 7), first=1):
    total = sum(lengths)
    return Stream(
        tokens=np.arange(total, dtype=np.int32),
        ends=np.cumsum(lengths, dtype=np.int64),
        first=np.full(len(lengths), first, np.int64),
        document=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        available=total - first * len(lengths),
    )


def some_positions(n, kl=0.1, seed=0):
    draw = np.random.default_rng(seed)
    top = draw.integers(9, size=n).astype(np.int32)
    changed = draw.random(n) < 0.2
    floats = lambda values: np.asarray(values, np.float32)  # noqa: E731
    return Positions(
        kl=floats(draw.exponential(kl, n)),
        kl_reverse=floats(draw.exponential(kl, n)),
        log_p=floats(-draw.exponential(1, n)),
        log_q=floats(-draw.exponential(1, n)),
        top_p=top,
        top_q=np.where(changed, top + 1, top).astype(np.int32),
        rank=changed.astype(np.int32),
        entropy=floats(draw.exponential(1, n)),
        confidence=floats(draw.random(n)),
        ordered=draw.random(n) < 0.5,
    )


def one(stream, variant="bnb4", role="candidate", protocol=PROSE, **changes):
    made = Measured(
        key=f"{variant}-{role}",
        protocol=protocol,
        variant=variant,
        baseline="fp16",
        role=role,
        stream=stream.sha256,
        n=stream.n,
        n_available=stream.available,
        windows=len(stream),
        vocabulary=10,
        cut=0,
        cut_baseline=0,
        batch=1,
        dtype="float32",
        device="CPU",
        variant_digest=variant,
        baseline_digest="base",
        created="2026-01-01",
    )
    return replace(made, **changes)


def test_each_number_is_its_definition():
    stream = a_stream()
    found = some_positions(stream.n)
    row = summarise(one(stream), found, stream)
    kl = found.kl.astype(float)
    assert row.units == 3
    assert row.kl.value == pytest.approx(kl.mean())
    assert row.kl.low < row.kl.value < row.kl.high
    assert row.quantiles[0] == pytest.approx(np.median(found.kl))
    assert row.quantiles[-1] == found.kl.max()
    assert row.kl_reverse == pytest.approx(found.kl_reverse.mean())
    assert row.same_top.value == pytest.approx((found.top_p == found.top_q).mean())
    assert row.ordered == pytest.approx(found.ordered.mean())
    moved = np.exp(found.log_q.astype(float)) - np.exp(found.log_p.astype(float))
    assert row.delta_p == pytest.approx((moved.mean(), math.sqrt((moved**2).mean())))
    assert row.ppl == pytest.approx(
        tuple(math.exp(-c.astype(float).mean()) for c in (found.log_p, found.log_q))
    )
    assert row.ratio.value == pytest.approx(row.ppl[1] / row.ppl[0])
    assert row.ratio.low < row.ratio.value < row.ratio.high


def test_bins_are_all_positions_once():
    stream = a_stream()
    found = some_positions(stream.n)
    row = summarise(one(stream), found, stream)
    for bins in (row.by_confidence, row.by_position):
        assert sum(part.n for part in bins) == stream.n
        assert sum(part.n * part.kl for part in bins) == pytest.approx(float(found.kl.sum()), rel=1e-6)
    assert row.by_position[0].low == 1.0
    sure = row.by_confidence[-1]
    mine = (found.confidence >= sure.low) & (found.confidence <= sure.high)
    assert sure.n == mine.sum()


def test_traces_tell_where_answers_part():
    stream = a_stream((6, 6, 6), first=2)
    found = some_positions(stream.n)
    found.top_q[:] = found.top_p
    found.top_q[[1, 4 + 2, 4 + 3]] += 1  # the first answer at its 2nd token, the second at its 3rd and 4th
    row = summarise(one(stream, protocol=Protocol("trace:own", "trace", "own")), found, stream)
    assert row.traced is not None
    assert (row.traced.answers, row.traced.diverged, row.traced.median_first) == (3, 2, 2.5)
    assert dict(row.traced.identical) == pytest.approx({1: 1.0, 2: 2 / 3, 4: 1 / 3})


def rows(*pairs, order=("fp16", "bnb4", "gptq"), baseline="fp16"):
    found = {made.key: (positions, stream) for made, positions, stream in pairs}
    return rows_of([made for made, _, _ in pairs], lambda made: found[made.key], order, baseline)


def test_the_floor_is_of_the_same_positions():
    stream = a_stream((5,) * 8)
    part = stream.beginning(2)
    floor, far, near = (
        some_positions(n, kl, seed) for n, kl, seed in ((8, 1e-6, 1), (32, 0.1, 2), (32, 1, 3))
    )
    near.kl[:8] = floor.kl * 1.5
    found = rows(
        (one(part, "fp16", "packing"), floor, part),
        (one(stream, "bnb4"), far, stream),
        (one(stream, "gptq"), near, stream),
    )
    assert [row.variant for row in found.rows] == ["fp16", "bnb4", "gptq"]
    bnb4, gptq = found.row("bnb4", "prose"), found.row("gptq", "prose")
    assert bnb4.of_floor == pytest.approx(far.kl[:8].mean() / floor.kl.mean(), rel=1e-6)
    assert not within_noise(bnb4)
    assert gptq.of_floor == pytest.approx(1.5, rel=1e-6)
    assert within_noise(gptq)
    assert found.floors == {"prose": pytest.approx(floor.kl.mean(), rel=1e-6)}


def test_a_floor_of_nothing_tells_all_apart_but_the_same():
    stream = a_stream()
    floor, same = some_positions(stream.n), some_positions(stream.n)
    floor.kl[:] = same.kl[:] = 0
    found = rows(
        (one(stream, "fp16", "packing"), floor, stream),
        (one(stream, "bnb4"), some_positions(stream.n), stream),
        (one(stream, "gptq"), same, stream),
    )
    assert found.row("bnb4", "prose").of_floor == math.inf
    assert within_noise(found.row("gptq", "prose"))


def test_nothing_is_compared_across_streams_or_baselines():
    stream, other = a_stream(), a_stream((4, 4, 4))
    found = rows(
        (one(other, "bnb4", created="2025"), some_positions(other.n), other),
        (one(stream, "gptq"), some_positions(stream.n), stream),
    )
    assert [row.variant for row in found.rows] == ["gptq"]
    older = (one(stream, "bnb4", created="2025", baseline_digest="old"), some_positions(stream.n), stream)
    newer = (one(stream, "gptq"), some_positions(stream.n), stream)
    assert [row.variant for row in rows(older, newer).rows] == ["gptq"]
    assert rows(newer, baseline="bnb4").rows == ()
    assert rows(newer, order=("fp16", "bnb4")).rows == ()


def test_without_names_of_files_a_protocol_keeps_its_noise_floor():
    secret, stream = Protocol("text:/a/secret.txt", "text", file="/a/secret.txt"), a_stream()
    part = stream.beginning(2)
    known = {"packing": part, "candidate": stream}
    measured = [
        one(known["packing"], "fp16", "packing", secret),
        one(known["candidate"], protocol=secret),
    ]
    read = lambda one: (some_positions(known[one.role].n), known[one.role])  # noqa: E731
    found = rows_of(measured, read, ["fp16", "bnb4"], "fp16")
    hidden = without_files(found)
    [name] = hidden.protocols
    assert name == f"text:{stream.sha256[:8]}"
    assert [row.role for row in hidden.of(name)] == ["packing", "candidate"]
    assert hidden.floors == {name: found.floors[secret.name]}
    assert "secret" not in str([row.measured for row in hidden.rows])
