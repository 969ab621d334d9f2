"""Divergences of logits: by hand, by PyTorch's own function in float64, by ties and by what is not finite."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from qeval.score.fidelity import divergence  # noqa: E402
from qeval.score.fidelity.divergence import compare  # noqa: E402

pytestmark = pytest.mark.torch


def logs(*rows):
    return torch.tensor(rows).log()


def test_a_vocabulary_of_three_by_hand():
    p, q = logs([0.5, 0.25, 0.25]), logs([0.25, 0.5, 0.25])
    found = compare(p, q, torch.tensor([1]))
    assert found.kl.item() == pytest.approx(0.5 * math.log(2) - 0.25 * math.log(2), abs=1e-7)
    assert found.kl_reverse.item() == pytest.approx(0.25 * math.log(2), abs=1e-7)
    assert found.log_p.item() == pytest.approx(math.log(0.25), abs=1e-7)
    assert found.log_q.item() == pytest.approx(math.log(0.5), abs=1e-7)
    assert (found.top_p.item(), found.top_q.item(), found.rank.item()) == (0, 1, 1)
    assert found.entropy.item() == pytest.approx(1.5 * math.log(2), abs=1e-7)
    assert found.confidence.item() == pytest.approx(0.5, abs=1e-7)
    assert not found.ordered.item()


def test_the_same_logits_are_exactly_nothing_apart():
    x = torch.randn(50, 5000) * 4
    found = compare(x, x.clone(), torch.zeros(50, dtype=torch.long))
    assert found.kl.eq(0).all()
    assert found.kl_reverse.eq(0).all()
    assert found.ordered.all()
    assert found.rank.eq(0).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("moved", [1e-3, 0.1, 3.0])
def test_it_is_pytorchs_own_in_float64(dtype, moved):
    torch.manual_seed(0)
    x = (torch.randn(20, 3001) * 5).to(getattr(torch, dtype))
    y = (x.float() + torch.randn(20, 3001) * moved).to(getattr(torch, dtype))
    targets = torch.randint(0, 3001, (20,))
    found = compare(x, y, targets)
    p, q = (torch.log_softmax(one.double(), -1) for one in (x, y))
    both = {"reduction": "none", "log_target": True}
    assert (found.kl - torch.nn.functional.kl_div(q, p, **both).sum(-1)).abs().max() < 1e-10
    assert (found.kl_reverse - torch.nn.functional.kl_div(p, q, **both).sum(-1)).abs().max() < 1e-10
    assert (found.log_p - p.gather(1, targets[:, None])[:, 0]).abs().max() < 1e-10
    assert (found.log_q - q.gather(1, targets[:, None])[:, 0]).abs().max() < 1e-10
    assert (found.entropy + (p.exp() * p).sum(-1)).abs().max() < 1e-10
    assert found.kl.min() > -1e-12


def test_blocks_of_the_vocabulary_change_nothing(monkeypatch):
    x, y = torch.randn(7, 1000), torch.randn(7, 1000)
    targets = torch.arange(7)
    whole = compare(x, y, targets)
    monkeypatch.setitem(divergence.BLOCK, "cpu", 37)
    parts = compare(x, y, targets)
    assert (whole.kl - parts.kl).abs().max() < 1e-12
    assert whole.rank.equal(parts.rank)


def test_of_equal_logits_the_lower_token_comes_first():
    x = torch.tensor([[1.0, 3.0, 3.0, 3.0, 0.0, 2.0, 3.0]])
    found = compare(x, x, torch.tensor([0]))
    assert found.top_p.item() == 1
    assert found.rank.item() == 0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_shows(wrong, side):
    pair = [torch.randn(3, 40), torch.randn(3, 40)]
    pair[side][1, 7] = wrong
    found = compare(*pair, torch.zeros(3, dtype=torch.long))
    assert not torch.isfinite(found.kl[1])
    assert torch.isfinite(found.kl[[0, 2]]).all()


def test_the_clamp_drops_what_llama_cpp_drops():
    """A direct transcription of the rule: logits are raised to 16 below the greatest, and terms of less than
    e^-16 are left out."""
    torch.manual_seed(1)
    x, y = torch.randn(6, 400) * 9, torch.randn(6, 400) * 9
    found = compare(x, y, torch.zeros(6, dtype=torch.long), clamp=True)
    for row in range(6):
        a, b = x[row].double(), y[row].double()
        top = a.max()
        lse_a, lse_b = torch.logsumexp(a, 0), torch.logsumexp(b, 0)
        total = 0.0
        for one, other in zip(a.tolist(), b.tolist(), strict=True):
            log_p = max(one, float(top) - 16) - float(lse_a)
            if log_p > -16:
                total += math.exp(log_p) * (log_p - (other - float(lse_b)))
        assert found.kl[row].item() == pytest.approx(total, abs=1e-9)
    assert (found.kl - compare(x, y, torch.zeros(6, dtype=torch.long)).kl).abs().max() > 1e-9
