"""At which commit a data set was read is told by `datasets`, or by the copy that was fetched."""

from __future__ import annotations

from types import SimpleNamespace

from qeval.load.hub_book import BOOK
from qeval.score.harness.sources import commit_of

COMMIT = "a" * 40


def loaded(*names: str) -> dict[str, SimpleNamespace]:
    sums = {name: {"num_bytes": 1, "checksum": None} for name in names}
    return {"test": SimpleNamespace(info=SimpleNamespace(download_checksums=sums))}


def test_what_the_library_recorded() -> None:
    assert commit_of(loaded(f"hf://datasets/org/set@{COMMIT}/test.parquet"), "org/set", None) == COMMIT
    assert commit_of(loaded("https://example.org/test.parquet"), "org/set", None) is None
    assert commit_of({"test": SimpleNamespace(info=None)}, "org/set", None) is None
    other = f"hf://datasets/org/set@{'b' * 40}/a.parquet"
    assert commit_of(loaded(f"hf://datasets/org/set@{COMMIT}/test.parquet", other), "org/set", None) is None


def test_what_a_fetched_copy_tells_and_another_mirror_does_not(tmp_path) -> None:
    (tmp_path / "org/set").mkdir(parents=True)
    assert commit_of(None, "org/set", tmp_path) is None
    copy = {"kind": "dataset", "repo": "org/set", "place": "org/set", "commit": COMMIT, "files": {}}
    import json

    (tmp_path / BOOK).write_text(json.dumps({"copies": [copy]}))
    assert commit_of(None, "org/set", tmp_path) == COMMIT
