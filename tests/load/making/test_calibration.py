"""Calibration text: cut and drawn as promised, and never the text that is evaluated."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from qeval.base.errors import QevalError
from qeval.load.making.calibration import Calibration, complete, identity, windows

TASKS = Path(__file__).parents[3] / "tasks"
OWN = Path(__file__).parents[3] / "qeval" / "load" / "making" / "calibration.txt"


class Letters:
    """A tokenizer whose tokens are letters."""

    eos_token_id = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def test_a_file_is_cut_in_its_order(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("abcdefghij")
    found = windows(Calibration(str(file), 5, 3), Letters())
    assert ["".join(map(chr, window)) for window in found] == ["abc", "def", "ghi"]
    assert len(windows(Calibration(str(file), 2, 3), Letters())) == 2


def test_another_seed_draws_other_windows_of_the_whole_text(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    text = "".join(map(chr, range(100, 1100)))
    file.write_text(text, encoding="utf-8")
    drawn = {seed: windows(Calibration(str(file), 40, 20, seed), Letters()) for seed in range(4)}
    begins = {seed: [window[0] - 100 for window in found] for seed, found in drawn.items()}
    assert begins[0] == list(range(0, 800, 20))
    assert windows(Calibration(str(file), 40, 20, 1), Letters()) == drawn[1]
    assert len({tuple(found) for found in begins.values()}) == 4
    for seed in (1, 2, 3):
        assert all("".join(map(chr, window)) in text and len(window) == 20 for window in drawn[seed])
        assert all(981 * i // 40 <= at < 981 * (i + 1) // 40 for i, at in enumerate(begins[seed]))


def test_where_there_is_nothing_to_draw_another_seed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("abc")
    assert windows(Calibration(str(file), 5, 3), Letters()) == [[97, 98, 99]]
    with pytest.raises(QevalError, match="is one sample of 3 tokens, so no seed acts on it"):
        windows(Calibration(str(file), 5, 3, 1), Letters())


def test_a_set_of_a_mirror_is_known_by_what_it_holds(tmp_path: Path) -> None:
    chosen = Calibration("wikitext2", 2, 3)
    place = tmp_path / "Salesforce" / "wikitext" / "wikitext-2-raw-v1"
    assert identity(chosen, tmp_path) == identity(chosen)
    place.mkdir(parents=True)
    (place / "train-0.parquet").write_bytes(b"one")
    (place / "test-0.parquet").write_bytes(b"two")
    before = identity(chosen, tmp_path)
    assert before != identity(chosen)
    (place / "test-0.parquet").write_bytes(b"ten")
    assert identity(chosen, tmp_path) == before
    (place / "train-0.parquet").write_bytes(b"ten")
    assert identity(chosen, tmp_path) != before


def test_a_text_too_short_or_absent_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("ab")
    with pytest.raises(QevalError, match="has 2 tokens, less than one sample of 3"):
        windows(Calibration(str(file), 5, 3), Letters())
    with pytest.raises(QevalError, match="There is no calibration text"):
        windows(Calibration(str(tmp_path / "absent"), 5, 3), Letters())


def mirror(place: Path, texts: list[str]) -> Path:
    folder = place / "allenai" / "c4"
    (folder / "en").mkdir(parents=True)
    lines = "\n".join(json.dumps({"text": text}) for text in texts)
    (folder / "en" / "train.jsonl").write_text(lines)
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    path: en/train.jsonl\n---\n"
    )
    return place


@pytest.mark.torch
def test_c4_is_read_from_a_mirror_and_drawn_by_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    place = mirror(tmp_path, ["one", "two", "three", "four", "", "five", "six", "seven"])
    drawn = [
        "".join(
            chr(token)
            for window in windows(Calibration("c4", 6, 4, seed), Letters(), place)
            for token in window
        )
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert set(drawn[0].split("\0")) <= {
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        drawn[0].split("\0")[-1],
    }


def test_left_to_choose_it_is_the_papers_or_what_a_cpu_manages() -> None:
    assert complete("auto", 0, 0, 3, demo=False) == Calibration("c4", 128, 2048, 3)
    assert complete("auto", 0, 0, 0, demo=True) == Calibration("own", 16, 256, 0)
    assert complete("auto", 7, 9, 0, demo=True) == Calibration("own", 7, 9, 0)


def test_the_identity_follows_the_text(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("a")
    first = identity(Calibration(str(file), 1, 1))
    copy = tmp_path / "copy.txt"
    copy.write_text("a")
    assert identity(Calibration(str(copy), 1, 1)) == first
    file.write_text("b")
    assert identity(Calibration(str(file), 1, 1)) != first
    assert identity(Calibration("c4", 1, 1)) != identity(Calibration("c4", 1, 1, 2))


def test_the_key_of_a_text_that_is_cut_in_order_stays(tmp_path: Path) -> None:
    """What was quantised with seed 0 is found again; a text of another seed was cut in order before, too."""
    file = tmp_path / "t.txt"
    file.write_text("a")
    text = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert identity(Calibration(str(file), 1, 1)) == {"text": text, "samples": 1, "length": 1, "seed": 0}
    assert identity(Calibration(str(file), 1, 1, 3)) != {"text": text, "samples": 1, "length": 1, "seed": 3}
    assert identity(Calibration("c4", 1, 1, 3)) == {"set": "c4", "samples": 1, "length": 1, "seed": 3}


def phrases(text: str, words: int = 6) -> set[tuple[str, ...]]:
    found = re.findall(r"[a-z0-9']+", text.lower())
    return {tuple(found[at : at + words]) for at in range(len(found) - words + 1)}


def test_nothing_that_is_evaluated_is_calibrated_on() -> None:
    own = phrases(OWN.read_text("utf-8"))
    files = [path for path in TASKS.rglob("*") if path.suffix in {".jsonl", ".txt"}]
    assert files
    shared = {path.name: own & phrases(path.read_text("utf-8")) for path in files}
    assert not {name: found for name, found in shared.items() if found}
