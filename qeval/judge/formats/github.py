"""The gate inside GitHub: the summary of a step, and annotations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qeval.base.markdown import escape
from qeval.base.records import Decision
from qeval.base.text import one_line, visible
from qeval.judge.formats import Format
from qeval.judge.formats.cells import ORDER, cells, headers, in_rows
from qeval.judge.gate import Outcome

SUMMARY_BYTES = 1024 * 1024
"""What GitHub takes of a step summary, in bytes of UTF-8."""


ANNOTATIONS = 10
"""What GitHub shows of a step's annotations, of each level."""


_ANNOTATION_LEVELS = {"FAIL": "error", "MISSING": "error", "INCONCLUSIVE": "warning"}


def github_summary(outcome: Outcome, most_bytes: int = SUMMARY_BYTES) -> str:
    """Markdown for $GITHUB_STEP_SUMMARY, of at most `most_bytes` in UTF-8: what did not pass stands open, the
    worst first; what passed is folded, and dropped first."""
    ordered = sorted(in_rows(outcome.decisions), key=lambda one: ORDER.index(one.status))
    rows = [_markdown_row(cells(outcome, one)) for one in ordered]
    n_open = sum(one.status != "PASS" for one in ordered)
    head = "\n".join(_summary_head(outcome))
    title = _markdown_row(headers(outcome)) + _markdown_row((":--", ":--", "--:", "--:", "--:", "--:", ":--"))
    left_out = "\n{} more rows did not fit here; qeval gate --json has them all.\n"
    fold = (f"\n<details><summary>{len(rows) - n_open} rules passed</summary>\n\n{title}", "\n</details>\n")
    room = most_bytes - len("".join((head, title, *fold, left_out.format(len(rows)))).encode())
    kept = _fitting(rows, room)
    opened = title + "".join(kept[:n_open]) if n_open else ""
    folded = "".join(kept[n_open:]).join(fold) if len(kept) > n_open else ""
    tail = left_out.format(len(rows) - len(kept)) if len(kept) < len(rows) else ""
    return head + opened + folded + tail


def _summary_head(outcome: Outcome) -> Iterator[str]:
    yield f"## {outcome.verdict}: {escape(outcome.model)}\n"
    about = one_line(outcome.about)
    yield f"{escape(about[:1].upper() + about[1:])}\n"
    for name, status in outcome.verdicts.items():
        yield f"- **{status}** {escape(name)}" + escape(_first_reason(outcome, name))
    yield ""
    for note in outcome.notes:
        yield f"> {escape(note)}\n"
    yield ""


def _first_reason(outcome: Outcome, variant: str) -> str:
    mine = [one for one in outcome.decisions if one.variant == variant and one.rule.tier == "required"]
    worst = min(mine, key=lambda one: (ORDER.index(one.status), not one.culprit), default=None)
    if worst is None or worst.status == "PASS":
        return ""
    alike = sum(one.status == worst.status for one in mine)
    return f"{f', {alike} of {len(mine)} rules' if alike > 1 else ''}: {worst.reason}"


def _markdown_row(cells: Sequence[str]) -> str:
    rule = all(set(cell) <= set(":-") and cell for cell in cells)
    return "| " + " | ".join(cells if rule else [escape(cell) for cell in cells]) + " |\n"


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
    for one in sorted(outcome.decisions, key=lambda one: (ORDER.index(one.status), not one.culprit)):
        if one.status != "PASS":
            level = _ANNOTATION_LEVELS[one.status] if one.rule.tier == "required" else "notice"
            by_level.setdefault(level, []).append(one)
    lines = [_command("notice", "qeval", outcome.headline)]
    lines += [_command("notice", "qeval: note", note) for note in outcome.notes]
    for level, decisions in by_level.items():
        room = max(ANNOTATIONS - (len(outcome.notes) + 1 if level == "notice" else 0), 1)
        shown = decisions if len(decisions) <= room else decisions[: room - 1]
        lines += [_command(level, f"qeval: {one.variant} {one.status}", one.reason) for one in shown]
        if len(shown) < len(decisions):
            rest = len(decisions) - len(shown)
            lines.append(_command(level, "qeval", f"{rest} more are in the step's summary."))
    return tuple(lines)


def _command(level: str, title: str, message: str) -> str:
    """A workflow command; its property escapes colon and comma besides what its message escapes."""
    return f"::{level} title={_escape(title).replace(':', '%3A').replace(',', '%2C')}::{_escape(message)}"


def _escape(text: str) -> str:
    return visible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


FORMAT = Format("github", github_summary)
