"""How much a model is to calculate: counts of tokens, from which a device's rate makes seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What a model is given: `tokens` of all requests counted one by one, `fed` those that go through it,
    padding included, `seen` the pairs of tokens of which one attends to the other, `scored` the places of
    which it predicts the next token, `written` the most tokens that it writes itself."""

    requests: int = 0
    tokens: int = 0
    fed: int = 0
    seen: int = 0
    scored: int = 0
    written: int = 0

    def and_(self, other: Work) -> Work:
        """Both together."""
        return Work(
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.fed + other.fed,
            self.seen + other.seen,
            self.scored + other.scored,
            self.written + other.written,
        )


@dataclass(frozen=True)
class Counted:
    """All of a job: `rows` of its suite by name, what the engine's self-check feeds one by one (`checking`),
    what lm-eval is to score too (`verifying`), and what the self-check feeds in batches (`batched`, a request
    each) and as a `tree`."""

    rows: dict[str, Work]
    checking: Work
    verifying: Work
    batched: Work = Work()
    tree: Work = Work()

    @property
    def scoring(self) -> Work:
        """All rows together."""
        found = Work()
        for row in self.rows.values():
            found = found.and_(row)
        return found
