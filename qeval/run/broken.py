"""GPUs that give up in the middle of the work: whether the GPU is at fault, or the variant."""

from __future__ import annotations

from collections.abc import Iterable

from qeval.run.seats import Seat


class Broken:
    """Under which variants the GPU of each seat gave up. A variant that breaks one GPU is tried on another
    one; a GPU that gives up under two variants, which broke no other, is at fault itself. Of seats without a
    GPU of their own nothing is remembered."""

    def __init__(self, seats: Iterable[Seat]) -> None:
        self._under: dict[int, set[str]] = {seat.number: set() for seat in seats if seat.device is not None}

    def at_fault(self, seat: Seat, variant: str) -> bool:
        """A seat's GPU gave up under a variant; whether it is to be given up, where others are left."""
        if seat.number not in self._under:
            return False
        here = self._under[seat.number]
        here.add(variant)
        alone = here.difference(*self._others(seat))
        return len(alone) > 1 and len(self._under) > 1

    def give_up(self, seat: Seat) -> None:
        """Nobody sits there any more."""
        self._under.pop(seat.number, None)

    def under(self, variant: str, seat: Seat) -> bool:
        """Whether the GPU of a seat gave up under a variant."""
        return variant in self._under.get(seat.number, ())

    def times(self, seat: Seat) -> int:
        """Under how many variants the GPU of a seat gave up."""
        return len(self._under.get(seat.number, ()))

    def shuns(self, variant: str, seat: Seat) -> bool:
        """Whether a variant waits for another GPU than that of a seat, which gave up under it."""
        return self.under(variant, seat) and any(variant not in found for found in self._others(seat))

    def _others(self, seat: Seat) -> list[set[str]]:
        return [found for number, found in self._under.items() if number != seat.number]

    def forgive(self, variant: str) -> None:
        """A variant failed on all that it was tried on: that was not the GPUs' fault."""
        for found in self._under.values():
            found.discard(variant)
