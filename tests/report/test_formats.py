"""One contract for every format of the report: the same runs, the odd ones among them, in each."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from factories import ARC, QUIZ, TRUTH, WIKI, context, judge, make_run

from qeval.base.errors import UsageError
from qeval.base.records import Policy, Result, Rule
from qeval.compare.columns import COLUMNS
from qeval.report.formats import Options, formats, render

PAGE = (Path(__file__).parents[2] / "docs" / "extend" / "format.md").read_text("utf-8")
HOSTILE = "a\x1b[2J\u202eb\n# c <script>alert(1)</script> |d| *e*"
POLICY = Policy((Rule(tasks="arc", max_drop=6.0),), source="policy.toml")


def example():
    """The format on the page that tells how to add one."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    module = {}
    exec(code, module)
    return module["FORMAT"]


FORMATS = {**formats(), ".adoc": example()}


def runs():
    """A whole run, one of a single variant, one without items, and one with a failed variant."""
    whole = make_run(3, (ARC, QUIZ, TRUTH, WIKI), 40, -0.04, seed=7)
    run, read, items = whole
    failed = Result(run.results[1].variant, "failed", error="No kernel for this device.")
    return {
        "whole": whole,
        "alone": (replace(run, results=run.results[:1]), read, items),
        "empty": make_run(2, n_items=0),
        "failed": (replace(run, results=(run.results[0], failed, run.results[2])), read, items),
    }


def built(made, policy=None):
    run, read, read_items = made
    decisions = judge(run, read, policy) if policy else ()
    return context(run, read, lambda cell: {item.key: item for item in read_items(cell)}, decisions, policy)


@pytest.mark.parametrize("ending", sorted(FORMATS))
@pytest.mark.parametrize("name", sorted(runs()))
def test_every_format_renders_every_run(ending, name):
    made = built(runs()[name])
    text = FORMATS[ending].render(made, Options())
    assert text.strip()
    for result in made.run.results if name != "empty" else ():
        assert result.variant.name in text
    assert "No kernel for this device." in text or name != "failed"


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_every_format_shows_every_statistic(ending):
    text = html.unescape(FORMATS[ending].render(built(runs()["whole"]), Options())).lower()
    for column in COLUMNS:
        shown = column.id if ending == ".json" else column.title.lower()
        assert shown in text or (ending == ".txt" and not column.brief)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_every_format_says_what_the_gate_found(ending):
    text = FORMATS[ending].render(built(runs()["whole"], POLICY), Options())
    assert "arc" in text
    assert any(word in text for word in ("Undecided", "INCONCLUSIVE", "Fail", "FAIL"))


def hostile():
    """A run whose every name is hostile: of the model, of a task, of a variant; and an error too."""
    run, read, _ = make_run(3, (replace(ARC, name=HOSTILE), WIKI), 40, seed=7)
    first, second, third = run.results
    named = replace(second, variant=replace(second.variant, name=HOSTILE))
    failed = replace(third, status="failed", error=HOSTILE)
    return context(replace(run, model=HOSTILE, results=(first, named, failed)), read, lambda _: {})


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_untrusted_text_is_shown_and_does_nothing(ending):
    text = FORMATS[ending].render(hostile(), Options())
    if ending == ".json":  # for machines, which get it back as it was
        assert json.loads(text)["variants"][1]["name"] == HOSTILE
        assert "\x1b" not in text
        return
    shown = re.sub(r"<script type=.*?</script>", "", text, flags=re.DOTALL)  # the data of the page's script
    assert shown.count("⟨U+202E⟩b") >= 3
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert "\n# c" not in shown or ending == ".html"  # where a new line is a space
    assert "<script>alert" not in shown or ending not in {".html", ".md"}


def test_an_ending_of_no_format_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(UsageError, match=r"no report format '\.pdf'"):
        render(built(runs()["alone"]), tmp_path / "x.pdf")
