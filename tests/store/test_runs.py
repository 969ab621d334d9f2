"""The store: what is written is read back, what is half-written or changed is never taken for whole."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qeval.base.errors import IncomparableError, QevalError
from qeval.base.hashing import digest, digested
from qeval.base.names import slug
from qeval.base.records import Cell, Item, Result, Run, Samples, Scheme, Suite, Task, Variant
from qeval.load.toy import Toy
from qeval.score import toy
from qeval.store.checking import check_cell, check_run
from qeval.store.clusters import clusters
from qeval.store.newest import mark
from qeval.store.reader import reader
from qeval.store.runs import RunDir, Store, check_readable

TASK = Task("arc_challenge", "acc_norm")


def a_cell(key: str = "k1", n: int = 5) -> tuple[Cell, Samples, tuple[Item, ...]]:
    samples, items = toy.score(replace(TASK, limit=n), Scheme("fp16"), Toy(), seed=1)
    return Cell(key=key, task=TASK, n=n, n_available=9, score=float(samples.value.mean())), samples, items


def a_run(*cells: Cell) -> Run:
    variant = Variant("fp16", "toy", Scheme("fp16"))
    return Run(
        "r",
        "2026-01-01T00:00:00+00:00",
        "toy",
        Suite("s", (TASK,)),
        "fp16",
        (Result(variant, "done", cells),),
    )


def test_a_cell_comes_back_as_it_was_written(tmp_path: Path) -> None:
    place = RunDir(tmp_path / "r")
    cell, samples, items = a_cell()
    stored = place.add(cell, samples, items)
    assert place.cell("k1") == stored
    back = RunDir(tmp_path / "r").samples(stored)
    for name in ("key", "doc_hash", "value", "weight", "answer", "gold", "cluster"):
        np.testing.assert_array_equal(getattr(back, name), getattr(samples, name))
    assert list(back.scores) == list(samples.scores)
    assert tuple(RunDir(tmp_path / "r").items(stored).values()) == items


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A new run directory at each call."""
    folder, numbers = tmp_path_factory.mktemp("runs"), itertools.count()
    return lambda: RunDir(folder / str(next(numbers)))


@given(text=st.text(max_size=40), value=st.floats(allow_nan=False))
def test_any_text_and_any_number_come_back(fresh, text: str, value: float) -> None:
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text) or text.endswith("\0"):
        return  # neither UTF-8 nor numpy's strings hold these
    place = fresh()
    cell, samples, _ = a_cell(n=2)
    samples = replace(samples, answer=np.array([text, "b"]), value=np.array([value, 1.0]))
    cell = replace(cell, score=float(samples.value.sum()) / 2)
    stored = place.add(cell, samples, [Item("0", text, text, (text,), text)])
    assert place.samples(stored).answer.tolist() == [text, "b"]
    assert place.samples(stored).value.tolist() == [value, 1.0]
    assert place.items(stored)["0"].prompt == text


@pytest.mark.slow
def test_neither_writing_nor_reading_waits_for_pandas(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); import test_runs;"
        "test_runs.test_a_cell_comes_back_as_it_was_written(Path(sys.argv[2]));"
        "print(sorted({'pandas', 'pyarrow.dataset'} & set(sys.modules)), flush=True);"
        "import os; os._exit(0)"  # Arrow's threads have been seen to abort an interpreter that ends
    )
    words = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    place = RunDir(tmp_path / "r")
    run = a_run(place.add(*a_cell()))
    place.write(run)
    assert place.read() == run


@pytest.mark.parametrize("versions", ["9.1", "1.0, 9.1"])
def test_a_run_of_a_newer_qeval_is_refused_with_its_version(tmp_path: Path, versions: str) -> None:
    place = RunDir(tmp_path / "r")
    place.path.mkdir()
    place.write(replace(a_run(), schema=Run.schema + 1, qeval_version=versions))
    with pytest.raises(
        QevalError, match=r"was written by a newer qeval \(9\.1, form 2; this one reads form 1\)"
    ):
        place.read()
    (place.path / "run.json").write_text(f'{{"schema": 7, "what": [], "qeval_version": "{versions}"}}')
    with pytest.raises(QevalError, match=r"newer qeval \(9\.1, form 7") as caught:
        place.read()
    assert "pip install --upgrade qeval" in caught.value.hint


def test_a_run_that_nobody_could_read_is_not_written() -> None:
    cell, *_ = a_cell()
    check_readable(a_run(cell))
    with pytest.raises(QevalError, match="r holds something that no run can hold"):
        check_readable(a_run(replace(cell, score=float("nan"))))


def test_what_lm_eval_verified_is_told_of_these_very_numbers_alone(tmp_path: Path) -> None:
    place = RunDir(tmp_path / "r")
    stored = place.add(*a_cell())
    assert place.verified(stored) == 0
    place.mark_verified(stored, 8)
    assert RunDir(place.path).verified(stored) == 8
    other = replace(stored, files={**stored.files, "samples.parquet": "0" * 64})
    assert place.verified(other) == 0
    file = place.path / "cells" / "k1" / "verified.json"
    whole = file.read_bytes()
    for damaged in (whole.replace(b"8", b"9", 1), whole[:-3], b"[]", b"{}", b'{"samples": 1}', b"\xff"):
        file.write_bytes(damaged)
        assert place.verified(stored) == 0
    file.write_bytes(whole)
    assert place.verified(stored) == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n": 10}, "10 of 9 items"),
        ({"texts": 6}, "6 texts behind 5 items"),
        ({"task": replace(TASK, chance=25.0)}, "a chance of 25.0"),
        ({"files": {"items.parquet": "0" * 64}}, "no samples.parquet among its files"),
        ({"files": {"samples.parquet": "../../etc/passwd"}}, "a SHA-256 of 'samples.parquet' that is none"),
        ({"metrics": {"stderr": 0.0}}, "stderr = 0.0"),
        ({"score": 1.5}, "a score of 1.5 of the kind accuracy"),
        ({"score": -0.1}, "a score of -0.1 of the kind accuracy"),
        ({"task": replace(TASK, kind="perplexity")}, "of the kind perplexity"),
        (
            {"task": replace(TASK, kind="score"), "score": 1.01, "files": {}},
            "a score of 1.01 of the kind score",
        ),
        ({"task": replace(TASK, kind="score"), "score": float("inf")}, "a score of inf of the kind score"),
        ({"n": -1}, "says what cannot be: n = -1"),
    ],
)
def test_a_cell_that_says_what_cannot_be_is_refused(changes: dict, said: str, tmp_path: Path) -> None:
    cell = replace(a_cell()[0], files={"samples.parquet": "0" * 64})
    assert check_cell(cell, tmp_path / "cell.json") == cell
    with pytest.raises(QevalError, match=re.escape(said)):
        check_cell(replace(cell, **changes), tmp_path / "cell.json")


def test_a_scored_result_without_its_items_is_refused(tmp_path: Path) -> None:
    run = a_run(a_cell()[0])
    with pytest.raises(QevalError, match="names no items of 'arc_challenge' of 'fp16'"):
        check_run(run, tmp_path / "run.json")
    with pytest.raises(QevalError, match="an id that is no name of a directory"):
        check_run(replace(run, id="../r"), tmp_path / "run.json")


def test_a_score_that_its_items_deny_is_refused_and_made_anew(tmp_path: Path) -> None:
    place = RunDir(tmp_path / "r")
    stored = place.add(*a_cell())
    last_bit = replace(stored, score=np.nextafter(stored.score, 1.0))
    lying = replace(stored, score=stored.score + 1e-6)
    read = reader([(place, a_run(stored))])
    assert len(read.samples(stored)) == len(place.samples(last_bit)) == stored.n
    for reading in (place.samples, read.samples):
        with pytest.raises(QevalError, match=r"holds items of 'arc_challenge' that score 0\.\d+, not 0\."):
            reading(lying)
    weighed = replace(a_cell()[1], value=np.array([-3.0, -1, -4, -1, -5]), weight=np.arange(1.0, 6))
    assert len(place.samples(place.add(replace(stored, key="k2", score=-14 / 15), weighed, ()))) == stored.n
    lie, samples, items = a_cell("k3")
    place.add(replace(lie, score=0.99), samples, items)
    assert place.whole("k1") is not None
    assert place.whole("k3") is None


def test_two_scores_of_one_task_are_refused(tmp_path: Path) -> None:
    place = RunDir(tmp_path / "r")
    stored = place.add(*a_cell())
    check_run(a_run(stored), tmp_path / "run.json")
    with pytest.raises(QevalError, match="has two scores of 'arc_challenge' of 'fp16'"):
        check_run(a_run(stored, replace(stored, key="k2")), tmp_path / "run.json")


@pytest.mark.parametrize("keep", [0, 1, 20, -1])
def test_a_truncated_header_is_refused_with_a_remedy(tmp_path: Path, keep: int) -> None:
    place = RunDir(tmp_path / "r")
    place.write(a_run())
    file = place.path / "run.json"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(QevalError) as caught:
        place.read()
    assert "run.json" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("file", ["samples.parquet", "items"])
@pytest.mark.parametrize("how", ["truncate", "flip", "delete"])
def test_tampered_files_are_refused(tmp_path: Path, file: str, how: str) -> None:
    place = RunDir(tmp_path / "r")
    stored = place.add(*a_cell())
    path = place.path / "cells" / "k1" / file if file != "items" else next((place.path / "items").iterdir())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "delete":
        path.unlink()
    else:
        path.write_bytes(data[:-7] if how == "truncate" else data)
    with pytest.raises(QevalError, match=r"SHA-256|missing"):
        RunDir(place.path).samples(stored) if file != "items" else RunDir(place.path).items(stored)
    assert Store(tmp_path).find("k1") is None, "a damaged cell is computed again"


@given(st.data())
def test_a_flipped_bit_of_a_header_is_never_believed(fresh, data) -> None:
    """It is refused, or it lies in the name of the checksum and the rest is as it was."""
    place = fresh()
    stored = place.add(*a_cell())
    place.write(a_run(stored))
    file = data.draw(st.sampled_from([place.path / "run.json", place.path / "cells" / "k1" / "cell.json"]))
    text = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(text)
    with contextlib.suppress(QevalError):
        again = RunDir(place.path)
        assert again.read() == a_run(stored)
        assert again.cell("k1") == stored


def keyed(n: int = 5, **changes: object) -> tuple[Cell, Samples, tuple[Item, ...], str]:
    """A cell under its true key."""
    text = digested({"task": asdict(TASK), **changes})
    cell, samples, items = a_cell(hashlib.sha256(text.encode()).hexdigest(), n)
    return cell, samples, items, text


def test_a_copied_cell_is_not_believed_and_gives_way(tmp_path: Path) -> None:
    store = Store(tmp_path)
    place = store.run_dir("r")
    one, two = place.add(*keyed()), keyed(6, variant="other")
    copy = place.path / "cells" / two[0].key
    shutil.copytree(place.path / "cells" / one.key, copy)
    assert store.find(two[0].key) is None
    header = copy / "cell.json"
    header.write_bytes(header.read_bytes().replace(one.key.encode(), two[0].key.encode()))
    assert store.find(two[0].key) is None
    header.write_bytes(re.sub(rb'"checksum":"[0-9a-f]+",', b"", header.read_bytes()))
    assert store.find(two[0].key) is None, "its key is not of what it says"
    stored = place.add(*two)
    assert RunDir(place.path).cell(stored.key) == stored
    assert len(RunDir(place.path).samples(stored)) == 6
    assert sorted(path.name for path in (place.path / "cells").iterdir()) == sorted([one.key, stored.key])


def test_a_cell_of_another_task_than_its_key_is_not_believed(tmp_path: Path) -> None:
    cell, *rest = keyed()
    place = RunDir(tmp_path / "r")
    place.add(replace(cell, task=replace(TASK, name="hellaswag")), *rest)
    with pytest.raises(QevalError, match="is of another task than hellaswag"):
        place.cell(cell.key)


@pytest.mark.parametrize("key", ["../../x", "..", "/etc", "a/b", ".hidden"])
def test_a_key_that_leads_out_of_the_run_is_refused(tmp_path: Path, key: str) -> None:
    place = RunDir(tmp_path / "r")
    stored = place.add(*a_cell())
    with pytest.raises(QevalError, match="names a file outside of the run"):
        place.samples(replace(stored, key=key))
    with pytest.raises(QevalError, match="names a file outside of the run"):
        place.items(replace(stored, files={**stored.files, "items.parquet": key}))


def test_a_run_without_a_checksum_is_read_as_before(tmp_path: Path) -> None:
    place = RunDir(tmp_path / "r")
    place.write(a_run())
    file = place.path / "run.json"
    file.write_bytes(re.sub(rb'"checksum": "[0-9a-f]+",', b"", file.read_bytes()))
    assert place.read() == a_run()


def test_the_newest_run_is_the_one_that_began_or_ended_last(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("a", "b"):
        store.run_dir(name).write(a_run())
        os.utime(tmp_path / name / "run.json", (1, 1))
    with pytest.raises(IncomparableError, match="is missing, so nothing tells which of 2 runs is the newest"):
        store.open(None)
    store.mark_newest("b")
    assert store.open(None).path.name == "b"
    store.mark_newest("a")
    assert store.open(None).path.name == "a"
    assert [run.path.name for run in store.runs()] == ["a", "b"]
    store.mark_newest("")
    with pytest.raises(IncomparableError, match="The newest run did not get far enough to have results; an"):
        store.open(None)
    mark(tmp_path, "", "org/name\nwith a line", "It is not there.")
    with pytest.raises(IncomparableError, match=r"run, of org/name with a line, did .* \(It is not there\);"):
        store.open(None)
    assert store.open("b").path.name == "b"
    store.mark_newest("gone")
    with pytest.raises(IncomparableError, match=r"The newest run, gone, is not in .* any more"):
        store.open(None)


def test_a_run_that_is_damaged_is_not_taken_for_the_beginning_of_a_copy(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name in ("run-1", "run-1-old"):
        store.run_dir(name).write(a_run())
    store.mark_newest("run-1")
    (tmp_path / "run-1" / "run.json").unlink()
    for name in ("run-1", None):
        place = store.open(name)
        assert place.path.name == "run-1"
        with pytest.raises(QevalError, match="is not a run"):
            place.read()
    assert store.open("run-1-").path.name == "run-1-old"


def test_a_cell_is_found_in_another_run_and_taken_over(tmp_path: Path) -> None:
    old = Store(tmp_path).run_dir("old")
    stored = old.add(*a_cell())
    found = Store(tmp_path).find("k1")
    assert found is not None
    new = Store(tmp_path).run_dir("new")
    new.adopt(*found)
    for path in sorted(old.path.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert new.cell("k1") == stored
    assert len(new.samples(stored)) == 5
    assert len(new.items(stored)) == 5


def test_nothing_half_written_is_left_when_writing_fails(tmp_path: Path, monkeypatch) -> None:
    place = RunDir(tmp_path / "r")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(QevalError, match="full") as caught:
        place.add(*a_cell())
    assert "same command" in caught.value.hint
    assert place.cell("k1") is None
    assert [path for path in place.path.rglob("*") if path.is_file()] == []


def test_a_read_only_directory_is_one_sentence(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(QevalError, match="cannot be written") as caught:
        RunDir(tmp_path / "r").write(a_run())
    assert "--runs-dir" in caught.value.hint


def test_many_writers_of_one_cell_leave_one_whole_cell(tmp_path: Path) -> None:
    errors = []

    def write() -> None:
        try:
            RunDir(tmp_path / "r").add(*a_cell())
        except Exception as error:  # noqa: BLE001 - whatever happens must be seen by the test
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    cell = RunDir(tmp_path / "r").cell("k1")
    assert cell is not None
    assert len(RunDir(tmp_path / "r").samples(cell)) == 5
    assert [p.name for p in (tmp_path / "r" / "cells").iterdir()] == ["k1"]


def test_a_run_is_opened_by_path_by_id_by_its_beginning_or_as_the_newest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number, name in enumerate(["alpha-1", "beta-1", "beta-2"]):
        store.run_dir(name).write(replace(a_run(), id=name))
        os.utime(tmp_path / name / "run.json", (number, number))
    assert store.open(str(tmp_path / "alpha-1")).path == tmp_path / "alpha-1"
    assert store.open("beta-1").path.name == "beta-1"
    assert store.open("al").path.name == "alpha-1"
    store.mark_newest("beta-2")
    assert store.open(None).path.name == "beta-2"
    with pytest.raises(QevalError, match="several"):
        store.open("beta")
    with pytest.raises(QevalError, match="no run 'alpga-1'") as caught:
        store.open("alpga-1")
    assert "alpha-1" in caught.value.hint


def test_no_run_at_all_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(QevalError) as caught:
        Store(tmp_path).open(None)
    assert "qeval run" in caught.value.hint


def test_a_reader_reads_each_cell_once(tmp_path: Path) -> None:
    place = RunDir(tmp_path / "r")
    stored = place.add(*a_cell())
    read = reader([(place, a_run(stored))])
    assert read.samples(stored) is read.samples(stored)


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": Scheme("fp16")}) == digest({"b": Scheme("fp16"), "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


@given(st.text())
def test_a_slug_is_always_a_file_name(text: str) -> None:
    name = slug(text)
    assert name
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name) <= 40


# --- cells of versions that did not look which items share texts -----------------------------------


def an_old_cell(key: str = "k1", *, texts: int | None = None) -> tuple[Cell, Samples, tuple[Item, ...]]:
    """Six items of which three each stand under one quotation; nobody looked."""
    cell, samples, items = a_cell(key, 6)
    asked = tuple(
        replace(
            item, question=" ".join([*(f"word{at // 3}.{number}" for number in range(60)), item.question])
        )
        for at, item in enumerate(items)
    )
    return replace(cell, texts=texts), samples, asked


def test_a_cell_that_does_not_tell_its_texts_gets_them_from_its_items(tmp_path: Path) -> None:
    place = RunDir(tmp_path / "r")
    old = place.add(*an_old_cell())
    assert RunDir(place.path).samples(old).cluster.tolist() == ["0", "0", "0", "3", "3", "3"]
    told = place.add(*an_old_cell("k2", texts=6))
    assert RunDir(place.path).samples(told).cluster.tolist() == [""] * 6
    assert Store(tmp_path).find("k1") == (place, old)


def test_texts_are_looked_for_once_for_all_variants(tmp_path: Path, monkeypatch) -> None:
    place = RunDir(tmp_path / "r")
    cells = [place.add(*an_old_cell(f"k{number}")) for number in range(3)]
    calls = []

    def counted(*words: object) -> object:
        calls.append(words)
        return clusters(*words)

    monkeypatch.setattr("qeval.store.runs.clusters", counted)
    assert {tuple(place.samples(cell).cluster) for cell in cells} == {("0", "0", "0", "3", "3", "3")}
    assert len(calls) == 1


@pytest.mark.parametrize("how", ["flip", "delete"])
def test_items_that_cannot_be_read_cost_their_texts_and_no_more(tmp_path: Path, how: str) -> None:
    place = RunDir(tmp_path / "r")
    old = place.add(*an_old_cell())
    [file] = (place.path / "items").iterdir()
    file.unlink() if how == "delete" else file.write_bytes(file.read_bytes()[::-1])
    assert RunDir(place.path).samples(old).cluster.tolist() == [""] * 6


def test_pages_are_texts_themselves(tmp_path: Path) -> None:
    cell, samples, items = an_old_cell()
    pages = tuple(replace(item, choices=()) for item in items)
    cell = replace(cell, task=replace(cell.task, kind="perplexity"))
    stored = RunDir(tmp_path / "r").add(cell, samples, pages)
    assert RunDir(tmp_path / "r").samples(stored).cluster.tolist() == [""] * 6


def test_a_cell_that_cannot_tell_its_texts_is_scored_anew_and_read_meanwhile(tmp_path: Path) -> None:
    place = RunDir(tmp_path / "r")
    cell, samples, items = an_old_cell()
    old = place.add(cell, samples, ())
    assert place.samples(old).cluster.tolist() == [""] * 6
    assert Store(tmp_path).find("k1") is None
    new = place.add(replace(cell, texts=2), replace(samples, cluster=np.array(["0"] * 3 + ["3"] * 3)), items)
    assert Store(tmp_path).find("k1") == (place, new)
    assert RunDir(tmp_path / "r").samples(new).cluster.tolist() == ["0", "0", "0", "3", "3", "3"]
    assert [path.name for path in (place.path / "cells").iterdir()] == ["k1"]


def test_a_damaged_cell_that_another_moved_away_first_is_made(tmp_path: Path, monkeypatch) -> None:
    from factories import make_run

    run, read, items = make_run(2, n_items=5)
    kept, [cell] = RunDir(tmp_path / "r"), run.results[0].cells[:1]
    cell = kept.add(cell, read(cell), items(cell))

    def moved(self: RunDir, key: str) -> None:
        self._cell_dir(key).rename(tmp_path / "moved")

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "whole", moved)
        kept.add(cell, read(cell), items(cell))
    assert kept.whole(cell.key) == cell
    assert [path.name for path in (tmp_path / "r" / "cells").iterdir()] == [cell.key]


def test_a_directory_of_runs_is_none_itself(tmp_path: Path) -> None:
    RunDir(tmp_path / "all of them" / "r").write(a_run())
    with pytest.raises(QevalError, match="holds runs, and is none itself") as caught:
        Store(tmp_path).open(str(tmp_path / "all of them"))
    assert caught.value.hint == f"Say where they are: --runs-dir '{tmp_path / 'all of them'}'"
    assert Store(tmp_path / "all of them").open(None).path.name == "r"
