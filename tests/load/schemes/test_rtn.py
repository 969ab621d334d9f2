"""Rounding to the nearest grid point: against a search over the grid, in order of the bits."""

from __future__ import annotations

import pytest

from qeval.base.errors import QevalError
from qeval.load.reading.layers import divide, divisor

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_no_point_of_the_grid_is_nearer(bits: int, symmetric: bool) -> None:
    import torch

    from qeval.load.reading.grid import round_to_nearest

    torch.manual_seed(0)
    weight = torch.randn(3, 32)
    found = round_to_nearest(weight, bits, 16, symmetric).reshape(-1, 16)
    groups = weight.reshape(-1, 16)
    low, high = groups.amin(1, keepdim=True).clamp(max=0), groups.amax(1, keepdim=True).clamp(min=0)
    span = 2 * torch.maximum(-low, high) if symmetric else high - low
    scale = (span / (2**bits - 1)).half().float()
    zero = 2 ** (bits - 1) if symmetric else torch.round(-low / scale)
    grid = (torch.arange(2**bits) - zero) * scale
    nearest = (groups[:, :, None] - grid[:, None, :]).abs().amin(2)
    assert torch.allclose((found - groups).abs(), nearest, atol=1e-6)
    assert max(len(row.unique()) for row in found) <= 2**bits


def test_fewer_bits_lose_more_and_zero_stays_zero() -> None:
    import torch

    from qeval.load.reading.grid import round_to_nearest

    torch.manual_seed(0)
    weight = torch.randn(8, 64)
    weight[0] = 0
    losses = [(round_to_nearest(weight, bits, 64, False) - weight).square().mean() for bits in (2, 3, 4, 8)]
    assert losses == sorted(losses, reverse=True)
    assert not round_to_nearest(weight, 4, 64, False)[0].any()
    assert round_to_nearest(weight.half(), 4, 64, False).dtype == torch.float16


def test_a_group_size_that_does_not_divide_is_refused_with_one_that_does() -> None:
    assert divide("q", 576, -1) == 576
    assert divide("q", 576, 64) == 64
    with pytest.raises(QevalError, match="128 does not divide the 576 inputs of q") as caught:
        divide("q", 576, 128)
    assert "group_size=64" in caught.value.hint
    with pytest.raises(QevalError, match="does not divide"):
        divide("q", 576, 0)
    assert [divisor(features) for features in (576, 1536, 4096, 11008, 7)] == [64, 128, 128, 128, 1]
