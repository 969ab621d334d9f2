"""What a rule of a policy limits, as a name with its value and in words; and what counts as important."""

from __future__ import annotations

from qeval.base import numbers
from qeval.base.errors import UsageError
from qeval.base.records import Rule

FIDELITY_LIMITS = ("max_kl", "min_top1_agreement")
"""Those that mean something for a protocol alone."""
LIMITS = ("max_drop", "min_recovery", "max_ppl_ratio", "max_flips", *FIDELITY_LIMITS)


MARGIN = 1.0
"""The percentage points from which on a difference matters, where nobody says otherwise."""
WORD_PERPLEXITY, BYTE_PERPLEXITY, BYTES_PER_WORD = 1.10, 1.018, 5.35
"""The ratio of word perplexity from which on it matters: published 4-bit files of Llama-2-7B stand at x1.03
to x1.06. Per byte it is the same, 1.10 ** (1 / 5.35), WikiText having 5.35 bytes a word."""


PERPLEXITY_LIMITS = {
    "word_perplexity": WORD_PERPLEXITY,
    "byte_perplexity": BYTE_PERPLEXITY,
    "bits_per_byte": BYTE_PERPLEXITY,  # its logarithm: what is compared is the same
}
"""The ratios that are allowed where points alone were spoken of (`--max-drop`), by metric."""


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


def is_brought(rule: Rule) -> bool:
    """Whether nobody wrote the rule: a limit of points brings it along for perplexities."""
    everywhere = rule.tasks == rule.variants == "*" and not rule.required
    return everywhere and rule.max_ppl_ratio == PERPLEXITY_LIMITS.get(rule.metric or "", -1.0)


def allowed_words(rule: Rule) -> str:
    """What a rule allows, in the sign and unit of a report's tables: "-0.5" points of difference, "x1.05",
    "2%" of answers or of positions, "99%" of the baseline's score, "0.02" nats."""
    name, value = limit_of(rule)
    if name == "max_drop":
        return str(numbers.as_written(-value, 0))
    if name == "max_ppl_ratio":
        return f"x{numbers.as_written(value, 2)}"
    return str(numbers.as_written(value, 2)) if name == "max_kl" else f"{numbers.as_written(100 * value, 0)}%"
