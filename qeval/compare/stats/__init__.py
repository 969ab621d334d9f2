"""Intervals, tests and sample sizes for scores compared item by item; docs/statistics.md gives the reasons.

Everywhere: differences are candidate minus baseline, `level` is the two-sided confidence level of an
interval, p-values are two-sided, and an interval is a tuple of floats, its lower bound before its upper.
Losses are items that only the baseline gets right, gains those that only the candidate gets right. A
score is *bounded* where every value lies between 0 and its weight, as for all accuracies; intervals of
bounded scores stay within [-1, 1], and say just that where there are no items. All functions are pure.

Raises, in all functions: ValueError where a call makes no sense (counts that do not fit, columns of
different lengths, a level outside (0, 1)); QevalError where data hold a value that is not a number.
"""

from __future__ import annotations

from qeval.compare.stats.accuracies import (
    HALF_ITEM,
    accuracy_interval,
    mcnemar_exact,
    mcnemar_midp,
    proportion_interval,
    tango_interval,
)
from qeval.compare.stats.means import average_interval, side_errors, stratified_interval
from qeval.compare.stats.paired import (
    FEWEST_CLUSTERS,
    NO_INFORMATION,
    changed_interval,
    paired_interval,
    paired_p_value,
    paired_ratio_margin,
    paired_standard_error,
)
from qeval.compare.stats.several import claims, holm, p_value
from qeval.compare.stats.sizes import bounded_n, required_n, smallest_margin
from qeval.compare.stats.unpaired import recovery, unpaired_interval, wilson_interval
from qeval.compare.stats.unseen import effective_number, unseen_share

__all__ = [
    "FEWEST_CLUSTERS",
    "HALF_ITEM",
    "NO_INFORMATION",
    "accuracy_interval",
    "average_interval",
    "bounded_n",
    "changed_interval",
    "claims",
    "effective_number",
    "holm",
    "mcnemar_exact",
    "mcnemar_midp",
    "p_value",
    "paired_interval",
    "paired_p_value",
    "paired_ratio_margin",
    "paired_standard_error",
    "proportion_interval",
    "recovery",
    "required_n",
    "side_errors",
    "smallest_margin",
    "stratified_interval",
    "tango_interval",
    "unpaired_interval",
    "unseen_share",
    "wilson_interval",
]
