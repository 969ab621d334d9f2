"""Streams of random tokens, and the divergence of whole tables of logits."""

from __future__ import annotations

import numpy as np

from qeval.base.fidelity import Measured, Stream
from qeval.base.protocols import Protocol


def random_stream(vocabulary, windows=5, length=20, first=1, seed=0):
    draw = np.random.default_rng(seed)
    return Stream(
        tokens=draw.integers(3, vocabulary, size=windows * length).astype(np.int32),
        ends=np.arange(1, windows + 1, dtype=np.int64) * length,
        first=np.full(windows, first, np.int64),
        document=np.repeat(np.arange(windows, dtype=np.int32), length),
        available=windows * (length - first),
    )


def measured(stream, variant="bnb4"):
    """The header of a variant that was measured by the whole of a stream."""
    return Measured(
        key="k",
        protocol=Protocol("prose", "prose"),
        variant=variant,
        baseline="fp16",
        role="candidate",
        stream=stream.sha256,
        n=stream.n,
        n_available=stream.n,
        windows=len(stream),
        vocabulary=1000,
        cut=3,
        cut_baseline=3,
        batch=1,
        dtype="float32",
        device="CPU",
        variant_digest="v",
        baseline_digest="b",
    )


def by_brute_force(first, second, stream, vocabulary):
    """KL at every scored position, from both models' logits over whole windows, in float64; and log p, log
    q."""
    import torch

    columns = [[], [], []]
    with torch.no_grad():
        for number in range(len(stream)):
            tokens = torch.tensor(stream.window(number).astype(np.int64))[None]
            p, q = (
                torch.log_softmax(model(tokens).logits[0, :-1, :vocabulary].double(), -1)
                for model in (first, second)
            )
            at = int(stream.first[number]) - 1
            p, q, target = p[at:], q[at:], tokens[0, at + 1 :, None]
            columns[0].append((p.exp() * (p - q)).sum(-1))
            columns[1].append(p.gather(1, target)[:, 0])
            columns[2].append(q.gather(1, target)[:, 0])
    return [torch.cat(column).numpy() for column in columns]
