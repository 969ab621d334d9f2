"""The gate as a shields.io endpoint badge."""

from __future__ import annotations

import json

from qeval.judge.excepted import in_words
from qeval.judge.formats import Format
from qeval.judge.formats.cells import ORDER
from qeval.judge.gate import NOT_JUDGED, Outcome

_LABEL = "quantisation"
_COLOURS = {
    "FAIL": "red",
    "MISSING": "lightgrey",
    "INCONCLUSIVE": "yellow",
    "PASS": "brightgreen",
    NOT_JUDGED: "lightgrey",
}


def badge(outcome: Outcome, label: str = _LABEL) -> str:
    """JSON for a shields.io endpoint badge: every variant's verdict, in the colour of the worst."""
    found = outcome.verdicts
    worst = min(found.values(), key=[*ORDER, NOT_JUDGED].index, default=NOT_JUDGED)
    words = [f"{name} {status.lower()}" for name, status in found.items()]
    message = ", ".join(words) or NOT_JUDGED.lower()
    if len(words) > 3:  # noqa: PLR2004 - more names than a badge can hold
        message = ", ".join(
            f"{list(found.values()).count(s)} {s.lower()}" for s in dict.fromkeys(found.values())
        )
    marks = (in_words(outcome.exceptions), "invented numbers" if outcome.invented else "")
    said = "; ".join(filter(None, marks))
    message += f" ({said})" if said else ""
    return _document(label, message, _COLOURS[worst])


def _document(label: str, message: str, colour: str) -> str:
    made = {"schemaVersion": 1, "label": label, "message": message, "color": colour}
    return json.dumps(made, ensure_ascii=False)


def _unjudged(_: str) -> str:
    """A badge where there is no verdict; why is too long for one."""
    return _document(_LABEL, "no verdict", _COLOURS[NOT_JUDGED])


FORMAT = Format("badge", badge, "Write a shields.io endpoint badge here.", _unjudged, '"schemaVersion"')
