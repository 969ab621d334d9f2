"""The title of a report: what was found, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qeval.base.names import in_a_sentence, short
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

_LET_PASS = ("PASS", "INCONCLUSIVE")
"""Verdicts that exceptions of a policy can let pass."""
_FAR = ("WORSE", "BETTER")
"""What is always said with its margin: "worse" alone would be a smaller claim."""


def headline(entries: Sequence[Entry], excepted: Mapping[str, str] | None = None) -> str:
    """What was found of all variants, in the order of the decision table: "bnb4 is equivalent within 1 point;
    gptq is worse than 1 point".

    Variants of which the same is said stand together; a margin is named where it first matters, and on which
    row it is so. `excepted` says what a variant that passes owes to exceptions. "" where there is none to
    tell of.
    """
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda one: BEST_FIRST.index(one.verdict.status)):
        let_pass = (excepted or {}).get(entry.variant, "") if entry.verdict.status in _LET_PASS else ""
        groups.setdefault((entry.verdict.status, let_pass or _word(entry)), []).append(entry)
    told: list[str] = []
    margins: set[str] = set()
    for (status, word), found in groups.items():
        margin = word.rpartition("than " if "than " in word else "within ")[2]
        names = [short(entry.variant, _LONGEST) for entry in found]
        said = _is(status, word, len(names) > 1, known=margin in margins, where=_where(found))
        told.append(f"{_names(names)} {said}")
        if status in _SHORT:
            margins.add(margin)
    return "; ".join((*told, *_hidden(entries)))


def _hidden(entries: Sequence[Entry]) -> list[str]:
    """Who is worse by the margin and fails by no rule, said apart: a policy's word alone would hide it."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        is_hidden = entry.verdict.by and entry.verdict.status != "FAIL"
        if is_hidden and entry.sums_up and entry.sums_up.status == "WORSE":
            found.setdefault(entry.sums_up.said, []).append(entry)
    return [
        f"by the margin, not the policy, {_names([short(one.variant, _LONGEST) for one in alike])} "
        f"{'is' if len(alike) == 1 else 'are'} {said}"
        for said, alike in found.items()
    ]


def against(reference: str, found: str) -> str:
    """What was found, where the variants are not compared with the run's own baseline."""
    return f"Against {short(reference, _LONGEST)}: {found}" if found else ""


def _word(entry: Entry) -> str:
    """What is said of a variant without a gate, whatever row it is said of."""
    found = entry.verdict.status in (*_SHORT, "UNDECIDED") and entry.sums_up
    return found.words if found else ""


def _where(entries: Sequence[Entry]) -> str:
    """The row that all of these are summed up by; of several rows, of which kind they are."""
    rows = sorted({entry.sums_up.of for entry in entries if entry.sums_up and _word(entry)})
    if len(rows) < 2:  # noqa: PLR2004 - one row, or none
        return f" {rows[0]}" if rows and rows[0] else ""
    return " on average or on a task" if "on average" in rows else " on a task"


def _is(status: str, word: str, several: bool, *, known: bool, where: str) -> str:
    if status in _LET_PASS and word:
        return f"{_WORDS[status][several]} ({word})"
    if status in _WORDS:
        _, colon, rest = word.partition(": ")
        return _WORDS[status][several] + ("" if rest.endswith("not scored") else where) + colon + rest
    if status == "MEASURABLE" and not known:
        margin = word.rpartition("than ")[2]
        of = " in perplexity" if margin.startswith("x") else ""
        return f"{'differ' if several else 'differs'} measurably, by less than {margin}{of}{where}"
    of = " in perplexity" if " x" in word else ""
    short_word = known and status not in _FAR
    return f"{'are' if several else 'is'} {_SHORT[status] if short_word else word}{of}{where}"


def _names(names: Sequence[str]) -> str:
    """Names joined as a sentence does, many of them counted."""
    if len(names) > _MOST_NAMES:
        return f"{', '.join(names[: _MOST_NAMES - 1])} and {len(names) - _MOST_NAMES + 1} more"
    return in_a_sentence(names)
