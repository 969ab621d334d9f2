"""What a rule of a policy limits, as a name with its value and in words."""

from __future__ import annotations

from qeval.base.errors import UsageError
from qeval.base.records import Rule

FIDELITY_LIMITS = ("max_kl", "min_top1_agreement")
"""Those that mean something for a protocol alone."""
LIMITS = ("max_drop", "min_recovery", "max_ppl_ratio", "max_flips", *FIDELITY_LIMITS)


def limit_of(rule: Rule) -> tuple[str, float]:
    """The name and value of the one limit that a rule sets."""
    for name in LIMITS:
        value = getattr(rule, name)
        if value is not None:
            return name, float(value)
    raise UsageError("A rule has no limit.", f"Set one of: {', '.join(LIMITS)}.")


def describe(rule: Rule) -> str:
    """The limit in words, as tables and files name it: "max_drop 0.5"; "" for a rule without one."""
    if not any(getattr(rule, name) is not None for name in LIMITS):
        return ""
    name, value = limit_of(rule)
    return f"{name} {value:g}"
