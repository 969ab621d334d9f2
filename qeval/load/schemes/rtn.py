"""rtn: round-to-nearest of weights in place, a data-free reference for every bit width on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qeval.load.reading.layers import divide
from qeval.load.reading.simulated import simulated
from qeval.load.spec import OptionSpec

if TYPE_CHECKING:
    from torch import Tensor


def check(name: str, _: int, inputs: int, options: Mapping[str, Any]) -> None:
    """Refuse a group size that does not divide a layer."""
    divide(name, inputs, int(options["group_size"]))


def round_weight(weight: Tensor, options: Mapping[str, Any]) -> Tensor:
    """The nearest points of an even grid, group by group."""
    from qeval.load.reading.grid import round_to_nearest

    group = _group(weight.shape[1], options)
    return round_to_nearest(weight, int(options["bits"]), group, bool(options["symmetric"]))


def bits(_: int, inputs: int, options: Mapping[str, Any]) -> float:
    """The code of a weight, and for each group a 16-bit scale and any zero point."""
    zero = 0 if options["symmetric"] else options["bits"]
    return float(options["bits"] + (16 + zero) / _group(inputs, options))


def _group(inputs: int, options: Mapping[str, Any]) -> int:
    size = int(options["group_size"])
    return inputs if size == -1 else size


SPECS = (
    simulated(
        "rtn",
        "round-to-nearest in place, data-free and simulated: the reference for every bit width",
        round_weight,
        bits,
        (
            OptionSpec("bits", int, 4, "bits of a weight", choices=(2, 3, 4, 5, 6, 7, 8)),
            OptionSpec("group_size", int, 64, "inputs that share a scale; -1 for a whole row", low=-1),
            OptionSpec("symmetric", bool, False, "no zero points"),
        ),
        check=check,
        place=200,
    ),
)
