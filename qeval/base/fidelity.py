"""The nouns of fidelity: a protocol, and one variant measured by it against the baseline, position by
position.

Fidelity says how far the distribution of the next token moved from the baseline's. A protocol is what makes
the tokens: its name alone says nothing, so the SHA-256 of its token stream stands beside each number, and
nothing is compared across streams.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qeval.base.protocols import Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["candidate", "packing", "plain", "float32"]
"""candidate: a variant. The others are the baseline once more: in batches of another size, by its own whole
forward pass, and in float32; together they are the noise floor."""
FIRST = 5
"""How many of the most likely tokens must agree in order."""


@dataclass(frozen=True)
class Passage:
    """Some tokens of a stream on which a variant went far: the window and the place in it where they begin,
    the mean divergence over them (nats), how many positions they are, and the text: untrusted."""

    window: int
    place: int
    kl: float
    n: int
    text: str
    before: str = ""


@dataclass(frozen=True)
class Measured:
    """One model measured against the baseline by a protocol; its positions lie in a file of their own.

    `n` positions of the `n_available` that the whole protocol has were scored, in `windows` windows. `stream`
    is the SHA-256 of the token stream. The distributions are over `vocabulary` tokens, after `cut` padded
    rows were cut from the model's logits and `cut_baseline` from the baseline's. `batch` windows were fed at
    once. `variant_digest` and `baseline_digest` are hashes of what the two models are. `checked` is the mean
    divergence (nats) of the replayed head from the model's own logits on the first window. `files` maps names
    to SHA-256.
    """

    key: str
    protocol: Protocol
    variant: str
    baseline: str
    role: Role
    stream: str
    n: int
    n_available: int
    windows: int
    vocabulary: int
    cut: int
    cut_baseline: int
    batch: int
    dtype: str
    device: str
    variant_digest: str
    baseline_digest: str
    checked: float = 0.0
    seconds: float = 0.0
    created: str = ""
    worst: tuple[Passage, ...] = ()
    notes: tuple[str, ...] = ()
    files: dict[str, str] | None = None
    schema: int = 1

    @property
    def limited(self) -> bool:
        """Whether fewer positions were scored than the protocol has."""
        return self.n < self.n_available


@dataclass(frozen=True, eq=False)
class Stream:
    """The tokens of a protocol. A window is fed by itself, all but its last token, and its tokens from
    `first` on are scored.

    tokens: (t,) int32, window after window. ends: (w,) int64, where each window ends. first: (w,) int64, the
    place within its window of the first token that is scored, 1 at the least. document: (t,) int32, the
    number of the document that a token belongs to, ascending; the window's where the stream has no documents.
    available: the positions of the whole protocol, of which these windows may be a part.
    """

    tokens: NDArray[np.int32]
    ends: NDArray[np.int64]
    first: NDArray[np.int64]
    document: NDArray[np.int32]
    available: int
    documents: bool = True

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each window begins, (w,)."""
        import numpy as np

        return np.concatenate([[0], self.ends[:-1]]).astype(np.int64)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many positions of each window are scored, (w,)."""
        return self.ends - self.starts - self.first

    @property
    def n(self) -> int:
        """How many positions are scored."""
        return int(self.counts.sum())

    def scored(self) -> NDArray[np.int64]:
        """The places in `tokens` of the scored ones, (n,), ascending."""
        import numpy as np

        spans = zip(self.starts + self.first, self.ends, strict=True)
        return np.concatenate([np.arange(low, high) for low, high in spans] or [np.empty(0, np.int64)])

    def window(self, number: int) -> NDArray[np.int32]:
        """The tokens of a window."""
        return self.tokens[self.starts[number] : self.ends[number]]

    @property
    def sha256(self) -> str:
        """The hash of everything that is read and scored, hexadecimal."""
        seen = hashlib.sha256()
        for number, first in enumerate(self.first.tolist()):
            tokens = self.window(number)
            seen.update(b"%d %d " % (first, len(tokens)) + tokens.astype(">u4").tobytes())
        return seen.hexdigest()

    def beginning(self, windows: int) -> Stream:
        """The stream of the first windows alone."""
        if windows >= len(self):
            return self
        last = int(self.ends[windows - 1])
        return Stream(
            self.tokens[:last],
            self.ends[:windows],
            self.first[:windows],
            self.document[:last],
            self.available,
            self.documents,
        )


@dataclass(frozen=True, eq=False)
class Positions:
    """What is kept of each scored position, columns of one length (n,) in the order of the stream.

    kl: KL(baseline || variant), kl_reverse: KL(variant || baseline), both float32 nats. log_p, log_q:
    float32, what the baseline and the variant give to the token that stands there. top_p, top_q: int32, their
    most likely tokens. rank: int32, how many tokens the variant likes better than the baseline's most likely
    one. entropy: float32, the baseline's, in nats. confidence: float32, the probability of its most likely
    token. ordered: bool, whether their first five tokens are the same in the same order. 37 bytes a position.
    """

    kl: NDArray[np.float32]
    kl_reverse: NDArray[np.float32]
    log_p: NDArray[np.float32]
    log_q: NDArray[np.float32]
    top_p: NDArray[np.int32]
    top_q: NDArray[np.int32]
    rank: NDArray[np.int32]
    entropy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    ordered: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.kl)
