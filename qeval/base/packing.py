"""How a variant's requests are fed to it: which of them together, on what, by which path."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Smaller:
    """A shard that did not fit in memory and was fed in smaller pieces: at most `size` tokens or sequences.

    `shard` is a hash of its requests, `tasks` are those that it holds requests of.
    """

    shard: str
    size: int
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Packing:
    """What is decided once a variant, so that its numbers depend neither on who computes them nor on when.

    `device` is the kind: a GPU's name, a CPU's instruction set. `threads` are those of a CPU, 0 on a GPU.
    `budget` is the tokens of a chunk of the token tree, `batch_size` the sequences of a plain batch, `shard`
    the passes of a shard. `compiled`: the body is compiled where its layers allow, and where `by_block` each
    block by itself. All of that is decided before loading, and moves sums in the last digits, so it is part
    of a cell's key. `rung` names the path
    that the self-check of the first worker found right.
    """

    device: str
    threads: int
    budget: int
    batch_size: int
    shard: int
    compiled: bool = False
    rung: str = ""
    smaller: tuple[Smaller, ...] = ()
    by_block: bool = False

    def same_as(self, other: Packing | None) -> bool:
        """Whether both were decided alike before loading."""
        return other is not None and self.decided == other.decided

    def in_key(self, task: str) -> dict[str, object]:
        """What the key of a task's cell holds of this, as plain data."""
        decided = self.decided
        smaller = sorted([one.shard, one.size] for one in self.smaller if task in one.tasks)
        return {**decided, "smaller": smaller} if smaller else decided

    def with_smaller(self, one: Smaller) -> Packing:
        """The same, once a shard turned out not to fit."""
        others = tuple(known for known in self.smaller if known.shard != one.shard)
        return Packing(**self.decided, rung=self.rung, smaller=(*others, one))  # type: ignore[arg-type]

    @property
    def halved(self) -> Packing:
        """Half as much at once: another packing, for machines on which this one ran out of memory."""
        half = {"budget": self.budget // 2, "batch_size": max(self.batch_size // 2, 1)}
        return Packing(**{**self.decided, **half}, rung=self.rung)  # type: ignore[arg-type]

    @property
    def decided(self) -> dict[str, object]:
        """What is decided before loading, as plain data."""
        decided: dict[str, object] = {
            "device": self.device,
            "threads": self.threads,
            "budget": self.budget,
            "batch_size": self.batch_size,
            "shard": self.shard,
            "compiled": self.compiled,
        }
        return {**decided, "by_block": True} if self.by_block else decided
