"""A gate's Outcome as text: table, JSON, JUnit XML, GitHub summary and annotations, badge.

Every function is pure and takes what `qeval.judge.gate.conclude` returned; names in it are untrusted text.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tabulate import tabulate

from qeval.base.records import Comparison, Decision
from qeval.base.rules import describe, limit_of
from qeval.judge import reasons
from qeval.judge.gate import NOT_JUDGED, Outcome

SCHEMA = "qeval.gate/1"
SUMMARY_BYTES = 1024 * 1024
"""What GitHub takes of a step summary, in bytes of UTF-8."""
ANNOTATIONS = 10
"""What GitHub shows of a step's annotations, of each level."""
_ORDER = ("FAIL", "MISSING", "INCONCLUSIVE", "PASS")
_COLOURS = {
    "FAIL": "red",
    "MISSING": "lightgrey",
    "INCONCLUSIVE": "yellow",
    "PASS": "brightgreen",
    NOT_JUDGED: "lightgrey",
}
_ANNOTATION_LEVELS = {"FAIL": "error", "MISSING": "error", "INCONCLUSIVE": "warning"}


# --- for a person -------------------------------------------------------------------------------


def table(outcome: Outcome) -> str:
    """What the terminal shows: every decision in a row, the reasons of what did not pass, the verdicts."""
    parts = [
        f"Gate of {outcome.suite} against {outcome.baseline}, by {outcome.policy.source or 'a policy'}",
        tabulate(
            [_cells(one) for one in outcome.decisions],
            headers=_headers(outcome),
            tablefmt="simple",
            disable_numparse=True,
            colalign=("left", "left", "right", "right", "right", "right", "left"),
        ),
        *[f"{status}: {name}" + _because(outcome, name) for name, status in outcome.verdicts.items()],
        *([chr(10).join(outcome.notes)] if outcome.notes else []),
    ]
    return "\n\n".join(parts)


def _headers(outcome: Outcome) -> tuple[str, ...]:
    levels = _levels(outcome)
    interval = f" ({levels[0]} interval)" if len(levels) == 1 else " (interval)"
    return ("variant", "task", outcome.baseline, "candidate", "lost" + interval, "allowed", "verdict")


def _levels(outcome: Outcome) -> list[str]:
    found = {one.comparison.confidence for one in outcome.decisions if one.comparison is not None}
    return [f"{round(100 * level, 2):g} %" for level in sorted(found)]


def _cells(one: Decision) -> tuple[str, ...]:
    name = one.task if one.rule.max_flips is None else f"{one.task} (flips)"
    if one.comparison is None or one.allowed is None:
        return (one.variant, name, "", "", "", describe(one.rule), status_words(one))
    text = reasons.shown(one.rule, one.comparison, one.allowed)
    change = f"{text.change} ({text.low} to {text.high})"
    if text.unit != "points":
        change += " " + text.unit.partition(" ")[0]
    return (one.variant, name, text.baseline, text.candidate, change, text.allowed, status_words(one))


def status_words(one: Decision) -> str:
    """The status with its tier and whether the row is a culprit: "FAIL, culprit", "FAIL (advisory)"."""
    culprit = ", culprit" if one.culprit else ""
    return one.status + culprit + (" (advisory)" if one.rule.tier == "advisory" else "")


def _because(outcome: Outcome, variant: str) -> str:
    mine = [one for one in outcome.decisions if one.variant == variant and one.status != "PASS"]
    mine.sort(key=lambda one: _ORDER.index(one.status))
    return "".join(f"\n  {one.reason}{_advice(one)}" for one in mine)


def _advice(one: Decision) -> str:
    return " (advisory)" if one.rule.tier == "advisory" else ""


# --- for a machine ------------------------------------------------------------------------------


def document(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON-able data; its fields are described in docs/gate.md. Scores, differences and
    limits are those of Comparison and Decision, neither rounded nor turned into points."""
    policy = outcome.policy
    return {
        "schema": SCHEMA,
        "run": outcome.run,
        "suite": outcome.suite,
        "baseline": outcome.baseline,
        "policy": {
            "source": policy.source,
            "allow_limited": policy.allow_limited,
            "allow_inconclusive": policy.allow_inconclusive,
        },
        "exit_code": int(outcome.exit),
        "verdicts": dict(outcome.verdicts),
        "decisions": [_decision(one) for one in outcome.decisions],
        "unjudged": list(outcome.unjudged),
        "notes": list(outcome.notes),
    }


def to_json(outcome: Outcome) -> str:
    """`document` as indented JSON text."""
    return json.dumps(document(outcome), indent=2, ensure_ascii=False, allow_nan=False)


def _decision(one: Decision) -> dict[str, Any]:
    limit, value = limit_of(one.rule)
    return {
        "variant": one.variant,
        "task": one.task,
        "status": one.status,
        "tier": one.rule.tier,
        "reason": one.reason,
        "rule": {
            "limit": limit,
            "value": value,
            "tasks": one.rule.tasks,
            "variants": one.rule.variants,
            "confidence": one.rule.confidence,
        },
        "allowed": one.allowed,
        "items_needed": one.items_needed,
        "culprit": one.culprit,
        "comparison": None if one.comparison is None else _comparison(one.comparison),
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    numbers = ("baseline", "candidate", "delta", "low", "high", "confidence", "p")
    names = ("metric", "kind", "level", "method", "n", "n_available", "losses", "gains", "flips", "limited")
    return {
        **{name: getattr(one, name) for name in names},
        **{name: _finite(getattr(one, name)) for name in numbers},
        "notes": list(one.notes),
    }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity: a bound that is none becomes null."""
    return float(value) if value is not None and math.isfinite(value) else None


def junit(outcome: Outcome) -> str:
    """JUnit XML, valid against Jenkins' junit-10.xsd: a suite per variant, a case per rule and row.

    A required FAIL is a failure, INCONCLUSIVE is skipped, MISSING an error; an advisory rule that did not
    pass is skipped, since it fails no build.
    """
    root = ET.Element("testsuites", name="qeval gate")
    for variant in outcome.verdicts:
        cases = [one for one in outcome.decisions if one.variant == variant]
        kinds = [_junit_kind(one) for one in cases]
        suite = ET.SubElement(root, "testsuite", name=_xml(variant), tests=str(len(cases)))
        for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(attribute, str(kinds.count(kind)))
        for one, kind in zip(cases, kinds, strict=True):
            suite.append(_junit_case(outcome, one, kind))
        ET.SubElement(suite, "system-out").text = _xml("\n".join((outcome.verdicts[variant], *outcome.notes)))
    for attribute in ("tests", "failures", "errors"):
        root.set(attribute, str(sum(int(suite.get(attribute, "0")) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _junit_kind(one: Decision) -> str:
    if one.status == "PASS":
        return ""
    if one.status == "INCONCLUSIVE" or one.rule.tier == "advisory":
        return "skipped"
    return "failure" if one.status == "FAIL" else "error"


def _junit_case(outcome: Outcome, one: Decision, kind: str) -> ET.Element:
    classname = f"{outcome.suite}.{one.variant}"
    case = ET.Element("testcase", name=_xml(f"{one.task}: {describe(one.rule)}"), classname=_xml(classname))
    if kind:
        reason = _xml(one.reason)
        ET.SubElement(case, kind, type=status_words(one), message=reason).text = reason
    return case


def _xml(text: str) -> str:
    """Text without the characters that XML 1.0 cannot hold at all."""
    return re.sub(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def badge(outcome: Outcome, label: str = "quantisation") -> str:
    """JSON for a shields.io endpoint badge: every variant's verdict, in the colour of the worst."""
    found = outcome.verdicts
    worst = min(found.values(), key=[*_ORDER, NOT_JUDGED].index, default=NOT_JUDGED)
    words = [f"{name} {status.lower()}" for name, status in found.items()]
    message = ", ".join(words) or NOT_JUDGED.lower()
    if len(words) > 3:  # noqa: PLR2004 - more names than a badge can hold
        message = ", ".join(
            f"{list(found.values()).count(s)} {s.lower()}" for s in dict.fromkeys(found.values())
        )
    return json.dumps(
        {"schemaVersion": 1, "label": label, "message": message, "color": _COLOURS[worst]}, ensure_ascii=False
    )


# --- for GitHub ---------------------------------------------------------------------------------


def github_summary(outcome: Outcome, most_bytes: int = SUMMARY_BYTES) -> str:
    """Markdown for $GITHUB_STEP_SUMMARY, of at most `most_bytes` in UTF-8: what passed is dropped first."""
    ordered = sorted(outcome.decisions, key=lambda one: _ORDER.index(one.status))
    head = "\n".join(_summary_head(outcome))
    rows = [_markdown_row(_cells(one)) for one in ordered]
    title = _markdown_row(_headers(outcome)) + _markdown_row(
        (":--", ":--", "--:", "--:", "--:", "--:", ":--")
    )
    left_out = "\n{} more rows did not fit here; qeval gate --json has them all.\n"
    room = most_bytes - len((head + title + left_out.format(len(rows))).encode())
    kept = _fitting(rows, room)
    tail = left_out.format(len(rows) - len(kept)) if len(kept) < len(rows) else ""
    return head + title + "".join(kept) + tail


def _summary_head(outcome: Outcome) -> Iterator[str]:
    yield f"## qeval gate: {_EXIT_WORDS[int(outcome.exit)]}\n"
    yield f"{_markdown(outcome.suite)} against {_markdown(outcome.baseline)}, by " + _markdown(
        outcome.policy.source or "a policy"
    )
    yield ""
    for name, status in outcome.verdicts.items():
        yield f"- **{status}** {_markdown(name)}" + _markdown(_first_reason(outcome, name))
    yield ""
    for note in outcome.notes:
        yield f"> {_markdown(note)}\n"
    yield ""


_EXIT_WORDS = {0: "passed", 3: "failed", 4: "not decided", 5: "data missing"}


def _first_reason(outcome: Outcome, variant: str) -> str:
    mine = [one for one in outcome.decisions if one.variant == variant and one.rule.tier == "required"]
    worst = min(mine, key=lambda one: (_ORDER.index(one.status), not one.culprit), default=None)
    return "" if worst is None or worst.status == "PASS" else f": {worst.reason}"


def _markdown_row(cells: Sequence[str]) -> str:
    rule = all(set(cell) <= set(":-") and cell for cell in cells)
    return "| " + " | ".join(cells if rule else [_markdown(cell) for cell in cells]) + " |\n"


def _markdown(text: str) -> str:
    """Text that Markdown and HTML take literally, on one line."""
    flat = " ".join(text.split())
    escaped = re.sub(r"([\\`*_{}\[\]()#+!|~])", r"\\\1", flat)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")


def _fitting(rows: Sequence[str], room: int) -> list[str]:
    kept = []
    for row in rows:
        room -= len(row.encode())
        if room < 0:
            break
        kept.append(row)
    return kept


def github_annotations(outcome: Outcome) -> tuple[str, ...]:
    """Workflow commands, one a line to print: what failed or is missing as errors, what is undecided as
    warnings, advisory rules as notices; of each level as many as GitHub shows, the last counting the rest."""
    by_level: dict[str, list[Decision]] = {}
    for one in sorted(outcome.decisions, key=lambda one: (_ORDER.index(one.status), not one.culprit)):
        if one.status != "PASS":
            level = _ANNOTATION_LEVELS[one.status] if one.rule.tier == "required" else "notice"
            by_level.setdefault(level, []).append(one)
    lines: list[str] = []
    for level, decisions in by_level.items():
        shown = decisions if len(decisions) <= ANNOTATIONS else decisions[: ANNOTATIONS - 1]
        lines += [_command(level, f"qeval: {one.variant} {one.status}", one.reason) for one in shown]
        if len(shown) < len(decisions):
            rest = len(decisions) - len(shown)
            lines.append(_command(level, "qeval", f"{rest} more are in the step's summary."))
    return tuple(lines)


def _command(level: str, title: str, message: str) -> str:
    """A workflow command; its property escapes colon and comma besides what its message escapes."""
    return f"::{level} title={_escape(title).replace(':', '%3A').replace(',', '%2C')}::{_escape(message)}"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def publish(outcome: Outcome, *, junit_file: Path | None = None, badge_file: Path | None = None) -> None:
    """Write what files were asked for, and GitHub's summary and annotations where it runs us.

    $GITHUB_STEP_SUMMARY is appended to; annotations go to stderr, which GitHub reads too, only
    under $GITHUB_ACTIONS. Raises QevalError where a file cannot be written.
    """
    from qeval.base.files import disk_errors, write_atomic

    for path, text in ((junit_file, junit(outcome)), (badge_file, badge(outcome))):
        if path is not None:
            with disk_errors(path):
                write_atomic(path, text.encode())
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with disk_errors(Path(summary)), Path(summary).open("a", encoding="utf-8") as file:
            file.write(github_summary(outcome))
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in github_annotations(outcome):
            print(line, file=sys.stderr)  # noqa: T201 - the runner reads commands from both streams
