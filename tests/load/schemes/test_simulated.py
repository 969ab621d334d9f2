"""Every simulated scheme, and the one on the page, rounds as it promises, under each of its options."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qeval.load.reading.simulated import Simulated
from qeval.load.schemes import SCHEMES
from qeval.load.spec import OptionSpec

pytestmark = pytest.mark.torch

PAGE = (Path(__file__).parents[3] / "docs" / "extend" / "scheme.md").read_text("utf-8")
OUTPUTS, INPUTS = 16, 4096


def example() -> Simulated:
    """The scheme on the page that tells how to add one."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    module: dict[str, Any] = {}
    exec(code, module)
    [spec] = module["SPECS"]
    return spec


SIMULATED = [spec for spec in (*SCHEMES.values(), example()) if isinstance(spec, Simulated)]


def cases() -> Iterator[Any]:
    """(scheme, all its options): the defaults, and each option at each value that it can be tried at."""
    for spec in SIMULATED:
        yield pytest.param(spec, spec.defaults, id=spec.name)
        for option in spec.options:
            for value in tried(option) if option.acts == "making" else ():
                options = spec.complete({option.name: value})
                yield pytest.param(spec, options, id=f"{spec.name}[{option.name}={value}]")


def tried(option: OptionSpec) -> tuple[Any, ...]:
    """The values of an option that are tried beside its default."""
    if option.name == "group_size":
        return (-1, 32)
    return (True, False) if option.type is bool else option.choices


def test_there_are_schemes_to_test() -> None:
    assert {"rtn", "ternary"} <= {spec.name for spec in SIMULATED}


@pytest.mark.parametrize(("spec", "options"), [*cases()])
def test_what_is_promised_of_rounding(spec: Simulated, options: dict[str, Any]) -> None:
    import torch

    torch.manual_seed(0)
    weight = torch.randn(OUTPUTS, INPUTS) / 50
    weight[1] = 0
    weight[2, ::2] = 0
    weight[3] *= 1e-3
    before = weight.clone()
    if spec.check is not None:
        spec.check("layer", OUTPUTS, INPUTS, options)
    once = spec.round_weight(weight, options)
    assert torch.equal(weight, before), "it is the loader that puts the weight into place"
    assert once.shape == weight.shape
    assert torch.isfinite(once).all()
    assert not once[1].any()
    error = (once - weight).norm(dim=1)[[0, 2, 3]]
    assert (error > 0).all(), "nothing was rounded"
    assert (error < weight.norm(dim=1)[[0, 2, 3]]).all(), "zeros would be nearer"
    again = (spec.round_weight(once, options) - once).norm(dim=1)[[0, 2, 3]]
    # Not nothing: a scale that is taken from the weights is another one for rounded weights.
    assert (again < error).all(), "what was rounded is not nearly what can be stored"


@pytest.mark.parametrize(("spec", "options"), [*cases()])
def test_a_group_has_as_many_values_as_the_bits_can_tell_apart(
    spec: Simulated, options: dict[str, Any]
) -> None:
    import torch

    torch.manual_seed(0)
    size = int(options.get("group_size", -1))
    rounded = spec.round_weight(torch.randn(OUTPUTS, INPUTS) / 50, options)
    groups = rounded.reshape(-1, INPUTS if size == -1 else size)
    bits = spec.bits(OUTPUTS, INPUTS, options)
    assert 0 < bits < 16
    room = 0.05 if size == -1 else 0.0  # for the scale of a long row
    assert max(len(group.unique()) for group in groups) <= 2 ** math.ceil(bits - room)
