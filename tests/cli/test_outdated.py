"""Files of an earlier gate do not go on saying PASS where the words of a later one are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stored import WIDE, store

from qeval.judge import formats

JUNIT, BADGE = "out/gate.xml", "out/badge.json"


@pytest.fixture
def passed(qeval, runs_dir, tmp_path, monkeypatch) -> Path:
    """A run, and in the directory `out` the files of a gate that it passed."""
    run = store(runs_dir)
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    qeval("gate", run, *WIDE, "--junit", JUNIT, "--badge", BADGE)
    assert verdicts() == ("pass", "pass")
    return run


def verdicts() -> tuple[str, str]:
    """What the two files say."""
    junit, message = Path(JUNIT).read_text(), json.loads(Path(BADGE).read_text())["message"]
    told = "pass" if 'errors="0"' in junit else "no verdict" if "No verdict" in junit else "something else"
    return told, "pass" if "pass" in message else message


BOTH = ("--junit", JUNIT, "--badge", BADGE)


@pytest.mark.parametrize(
    "words",
    [
        ("gate", "--tpyo", *BOTH),
        ("gate", *BOTH, "--confidence", "much"),
        ("gate", *BOTH, "--margin", "x"),
        ("gate", *BOTH, "--policy"),
        ("gate", f"--junit={JUNIT}", f"--badge={BADGE}", "--baseline", "a", "--baseline", "b"),
        ("gate", "--junit", "other.xml", *BOTH),
        ("gate", "--jnuit", JUNIT, "--badge", BADGE),
        ("gate", "--junit", JUNIT, "--bagde", BADGE),
        ("gate", "--max-drop", *BOTH),
        ("gate", *BOTH, "--max-drop", "1", "--policy", "none.toml"),
        ("gat", *BOTH),
        ("--tpyo", "gate", *BOTH),
        ("--runs-dir", "x", "gate", *BOTH),
        ("gate", "--junit", BADGE, "--badge", BADGE, "--junit", JUNIT),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("passed")
def test_whoever_refuses_the_words_the_files_tell_of_no_verdict(qeval, words: tuple[str, ...]) -> None:
    qeval(*words, code=2)
    assert verdicts() == ("no verdict", "no verdict")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError, PermissionError, ZeroDivisionError])
def test_a_gate_that_is_interrupted_or_breaks_leaves_no_verdict(qeval, passed, monkeypatch, kind) -> None:
    def broken(*_):
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr("qeval.judge.gate.conclude", broken)
        assert qeval("gate", passed, *WIDE, *BOTH, code=None).exit_code in {1, 130}
    assert verdicts() == ("no verdict", "no verdict")
    qeval("gate", passed, *WIDE, *BOTH)
    assert verdicts() == ("pass", "pass")


def test_what_is_no_file_of_a_gate_is_left_alone(qeval, passed) -> None:
    policy = Path("policy.toml")
    policy.write_text("[[rule]]\nmax_drop = 90\n")
    for words in (("--jnuit", policy), ("--tpyo", policy), ("--policy", policy, "--tpyo"), ("--", *BOTH)):
        qeval("gate", passed, *words, code=None)
    assert policy.read_text() == "[[rule]]\nmax_drop = 90\n"
    assert verdicts() == ("pass", "pass")
    qeval("gate", "--junit", "new.xml", "--tpyo", code=2)
    assert not Path("new.xml").exists()


def test_the_reason_stands_in_the_file(qeval, passed) -> None:
    qeval("gate", passed, *BOTH, "--max-drpo", "1", code=2)
    assert "No such option '--max-drpo'. Did you mean '--max-drop'?" in Path(JUNIT).read_text()


def test_every_format_of_a_file_has_a_way_to_tell_of_no_verdict() -> None:
    for one in formats.formats().values():
        if one.help:
            assert one.unjudged, one.name
            assert one.sign, one.name
            assert one.sign in one.unjudged("why"), one.name
