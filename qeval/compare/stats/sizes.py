"""How many items decide: sample sizes, and the margins that so many items can prove."""

from __future__ import annotations

import math
from statistics import NormalDist

from qeval.compare.stats.accuracies import HALF_ITEM
from qeval.compare.stats.columns import checked_level

_HALVINGS = 60


def required_n(discordance: float, margin: float, confidence: float = 0.95, power: float = 0.8) -> int:
    """How many items let a candidate as good as the baseline pass, with probability `power`.

    Args:
        discordance: the share of items on which only one of the two is right (losses and gains).
        margin: the loss allowed, a fraction of items in (0, 1).
        confidence: one-sided, as the gate's.
        power: of passing when nothing is truly lost.

    Returns:
        discordance (z_confidence + z_power)² / margin² (the paired test's sample size, as Connor 1987,
        Biometrics 43:207, without the small second-order term), and no fewer than an identical model
        needs in `accuracy_interval`. It promises up to four points of power too much where hundreds
        of items are needed, more where fewer than about twenty are expected to be lost or gained.
    """
    if not (0 <= discordance <= 1 and 0 < margin < 1):
        raise ValueError(f"discordance {discordance} or margin {margin} is no fraction")
    z, reach = _one_sided(confidence, power)
    root = (z * math.sqrt(1 - margin) + math.sqrt(z * z * (1 - margin) + 4 * HALF_ITEM)) / 2
    # The least number is exclusive: exactly there, the bound still touches the margin.
    return max(math.ceil(discordance * (reach / margin) ** 2), math.floor(root * root / margin) + 1)


def smallest_margin(n: float, discordance: float, confidence: float = 0.95, power: float = 0.8) -> float:
    """The margin that `n` items can prove with probability `power`: the inverse of `required_n`.

    With a discordance of 0 it is what an identical model can prove at all. Without items it is 1.
    """
    if n < 1:
        return 1.0
    z, reach = _one_sided(confidence, power)
    b = z * z + 2 * HALF_ITEM
    floor = (b + math.sqrt(b * b - 4 * HALF_ITEM**2 * (1 + z * z / n))) / (2 * (n + z * z))
    return min(max(reach * math.sqrt(discordance / n), floor), 1.0)


def bounded_n(half: float, n: float, wanted: float, confidence: float = 0.95, *, luck: float = 0.0) -> float:
    """How many items bring the half-width of a bounded mean's interval from `half`, with `n` items, to
    `wanted`: noise falls as 1 / sqrt(n), the share that may be unseen as 1 / n, and squares add. They do so
    only roughly: the half-width counts 3% more, which gives up to twice too many items, not too few.

    `luck` is how much an unlucky draw adds, in half-widths of the noise: what may be unseen has none of it,
    so that without noise as many items do as where every item stands alone.
    """
    unseen = -math.log(1 - checked_level(confidence))
    noise = max((1.03 * half) ** 2 - (unseen / n) ** 2, 0.0) * n
    low, high = 0.0, math.sqrt(wanted / unseen)  # of 1 / sqrt(n): there, what is unseen alone is wanted
    for _ in range(_HALVINGS):
        root = (low + high) / 2
        reach = math.hypot(math.sqrt(noise) * root, unseen * root**2) + luck * math.sqrt(noise) * root
        low, high = (low, root) if reach > wanted else (root, high)
    return 1 / high**2


def _one_sided(confidence: float, power: float) -> tuple[float, float]:
    """The normal quantile of `confidence`, and its sum with that of `power`."""
    z = NormalDist().inv_cdf(checked_level(confidence))
    return z, z + NormalDist().inv_cdf(checked_level(power))
