"""The picture of a terminal session: what it shows, when, and that nothing in it acts."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[1]
RECORDING = ROOT / "docs" / "images" / "demo.cast"


@pytest.fixture(scope="module")
def cast() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_cast", ROOT / "docs" / "cast.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_a_session_is_shown_screen_by_screen_with_pauses_shortened(cast: ModuleType, tmp_path: Path) -> None:
    said = [
        [0.0, "o", "\x1b[1m$ qeval\x1b[0m\r\n"],
        [30.0, "o", "one <b>\r\n"],
        [30.02, "o", "two \x1b[31mred\x1b[0m\r\n"],
        [31.0, "i", "not shown"],
        [32.0, "o", "\x1b[1A\x1b[2Kthree\r\n"],
    ]
    recording = tmp_path / "x.cast"
    recording.write_text(
        "\n".join(map(json.dumps, [{"version": 2, "width": 80, "height": 30}, *said])), "utf-8"
    )
    found = cast.screens(cast.events(recording))
    assert [round(at, 2) for at, _ in found] == [0.0, 1.2, 2.42]
    words = [[" ".join(re.sub("<[^>]+>", " ", row).split()) for row in rows if row] for _, rows in found]
    assert words == [
        ["$ qeval"],
        ["$ qeval", "one &lt;b&gt;", "two red"],
        ["$ qeval", "one &lt;b&gt;", "three"],
    ]
    picture = cast.drawn(found)
    tree = ET.fromstring(picture)
    assert picture.count('font-weight="700"') == 1
    assert cast.COLOURS["red"] in picture
    assert "".join(tree.itertext()).count("one <b>") == 1  # drawn once, used twice
    assert not re.search(r"<script|<foreignObject|href=\"(?!#)|url\(", picture)
    visible = [group.get("id") for group in tree.findall(".//{*}g") if group.get("visibility") is None]
    assert visible == ["f2"]


def test_a_long_session_runs_faster_to_its_end(cast: ModuleType, tmp_path: Path) -> None:
    said = [[float(at), "o", f"{at}\r\n"] for at in range(100)]
    (tmp_path / "x.cast").write_text("\n".join(map(json.dumps, [{"version": 2}, *said])), "utf-8")
    shown = cast.events(tmp_path / "x.cast")
    assert [text for _, text in shown] == [text for _, _, text in said]
    assert shown[-1][0] == pytest.approx(cast.MOST)
    assert shown[33][0] == pytest.approx(cast.MOST / 3)


def test_what_a_command_prints_is_recorded(cast: ModuleType, tmp_path: Path) -> None:
    cast.record(tmp_path / "x.cast", ["printf 'a\\nb\\n'; tput cols 2>/dev/null || stty size"])
    head, *lines = map(json.loads, (tmp_path / "x.cast").read_text("utf-8").splitlines())
    assert head["version"] == 2
    text = "".join(line[2] for line in lines)
    assert "a\r\nb\r\n" in text
    assert "80" in text


@pytest.mark.slow
def test_the_pictures_are_drawn_from_what_is_stored(cast: ModuleType) -> None:
    images = ROOT / "docs" / "images"
    found = cast.screens(cast.events(images / "demo.cast"))
    assert (images / "demo.svg").read_text("utf-8") == cast.drawn(found), "draw it anew: make pictures"


def test_the_recording_shows_the_figures_of_the_example() -> None:
    """Those of the variants that no CPU makes otherwise: what GPTQ makes depends on how one rounds."""
    text = "".join(json.loads(line)[2] for line in RECORDING.read_text("utf-8").splitlines()[1:])
    shown = {re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in re.split(r"[\r\n]+", text)}
    readme = (ROOT / "README.md").read_text("utf-8").split("```\ntask   ", 1)[1].split("```")[0]
    rows = re.findall(r"(?:fp16 +[\d.]+ +baseline|bnb4 +[\d.]+ +\S+ +\(.*?\))", readme)
    assert len(rows) > 4
    told = {" ".join(line.split()) for line in shown}
    assert [row for row in rows if not any(" ".join(row.split()) in line for line in told)] == []
