"""The title of a report: what was found, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from qeval.base.names import short
from qeval.report.ranking import BEST_FIRST, Entry

_MOST_NAMES = 3
_LONGEST = 34
_WORDS = {
    "PASS": ("passes", "pass"),
    "FAIL": ("fails", "fail"),
    "INCONCLUSIVE": ("is undecided", "are undecided"),
    "UNDECIDED": ("is undecided", "are undecided"),
    "MISSING": ("could not be judged", "could not be judged"),
    "NONE": ("has nothing to compare", "have nothing to compare"),
    "BROKEN": ("did not run", "did not run"),
}
"""What is said of one variant and of several."""
_SHORT = {
    "WORSE": "worse",
    "BETTER": "better",
    "EQUIVALENT": "equivalent",
    "MEASURABLE": "measurably different",
}


def headline(entries: Sequence[Entry]) -> str:
    """What was found of all variants, the best first: "bnb4 is equivalent within 1 point; gptq is worse";
    among those that are worse the worst first, since many names are cut short.

    Variants of which the same is said stand together; a margin is named where it first matters. "" where
    there is none to tell of.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for entry in sorted(entries, key=lambda one: BEST_FIRST.index(one.verdict.status)):
        status = entry.verdict.status
        said = (status, entry.word if status in (*_SHORT, "UNDECIDED") else "")
        groups.setdefault(said, []).append(short(entry.variant, _LONGEST))
    told: list[str] = []
    margins: set[str] = set()
    for (status, word), names in groups.items():
        margin = word.rpartition("than " if "than " in word else "within ")[2]
        ordered = names[::-1] if status in {"WORSE", "FAIL"} else names
        told.append(f"{_names(ordered)} {_is(status, word, len(names) > 1, known=margin in margins)}")
        if status in _SHORT:
            margins.add(margin)
    return "; ".join(told)


def _is(status: str, word: str, several: bool, *, known: bool) -> str:
    if status in _WORDS:
        _, colon, lacks = word.partition(": ")
        return _WORDS[status][several] + colon + lacks
    if status == "MEASURABLE" and not known:
        margin = word.rpartition("than ")[2]
        of = " in perplexity" if margin.startswith("x") else ""
        return f"{'differ' if several else 'differs'} measurably, by less than {margin}{of}"
    of = " in perplexity" if " x" in word else ""
    return f"{'are' if several else 'is'} {_SHORT[status] if known else word}{of}"


def _names(names: Sequence[str]) -> str:
    """Names joined as a sentence does, many of them counted."""
    if len(names) > _MOST_NAMES:
        return f"{', '.join(names[: _MOST_NAMES - 1])} and {len(names) - _MOST_NAMES + 1} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
