"""Directories appear whole or not at all, whoever is killed and however many build them."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from qeval.base import files
from qeval.base.errors import QevalError
from qeval.base.files import build_directory, link_or_copy, remove_begun, write_atomic, write_text


def test_a_failed_build_leaves_nothing_and_the_next_one_works(tmp_path) -> None:
    target = tmp_path / "d"

    def fail(partial):
        (partial / "half").write_text("x")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        build_directory(target, fail)
    assert not target.exists()
    build_directory(target, lambda partial: (partial / "whole").write_text("y"))
    assert [path.name for path in target.iterdir()] == ["whole"]


def test_what_a_killed_process_left_is_removed(tmp_path) -> None:
    left = tmp_path / ".d.partial-abc"
    left.mkdir()
    (left / "half").write_text("x")
    build_directory(tmp_path / "d", lambda partial: (partial / "whole").write_text("y"))
    assert not left.exists()


def test_of_several_builders_one_builds(tmp_path) -> None:
    built = []

    def build(partial):
        built.append(partial)
        time.sleep(0.05)
        (partial / "whole").write_text("y")

    threads = [threading.Thread(target=build_directory, args=(tmp_path / "d", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (tmp_path / "d" / "whole").read_text() == "y"


def test_a_place_that_cannot_be_written_to_is_said_so(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QevalError, match="cannot be written to"):
        build_directory(tmp_path / "file" / "d", lambda _: None)


def test_a_file_is_replaced_whole(tmp_path) -> None:
    path = tmp_path / "a" / "b.json"
    write_atomic(path, b"1")
    write_atomic(path, b"2")
    assert path.read_text() == "2"
    assert [found.name for found in path.parent.iterdir()] == ["b.json"]


def test_a_links_target_is_written_and_the_link_stays(tmp_path) -> None:
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    link.symlink_to(target)
    for text in ("once", "twice"):  # the target is made first, then replaced
        write_text(link, text)
        assert link.is_symlink()
        assert not target.is_symlink()
        assert target.read_text() == text


def test_a_circle_of_links_is_a_sentence(tmp_path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    with pytest.raises(QevalError, match="cannot be written"):
        write_text(one, "x")


def test_a_fifo_is_written_through(tmp_path) -> None:
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    with pytest.raises(QevalError, match="Nothing reads from") as caught:
        write_text(fifo, "x")
    assert "reader" in caught.value.hint
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    text = "more than a pipe holds at once\n" * 10_000
    until = time.monotonic() + 300
    while time.monotonic() < until:  # until the reader is there
        try:
            write_text(fifo, text)
            break
        except QevalError:
            time.sleep(0.01)
    reader.join(300)
    assert read == [text.encode()]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_device_is_written_through_and_stays_one(tmp_path) -> None:
    """A node of our own that swallows what is written, as the null device does."""
    node = tmp_path / "swallows"
    try:
        os.mknod(node, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        node.write_bytes(b"")
    except PermissionError:
        pytest.skip("devices cannot be made here")
    write_text(node, "x")
    assert stat.S_ISCHR(node.stat().st_mode)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["report", "gate"])
def test_all_commands_treat_their_outputs_alike(qeval, tmp_path, command: str) -> None:
    qeval("run", "--model", "toy[items=40]", "--schemes", "fp16,rtn")
    words = {
        "report": ("report", "-o"),
        "gate": ("gate", "--max-drop", "90", "--junit"),
    }[command]
    link, target = tmp_path / "link.html", tmp_path / "not" / "yet" / "there.html"
    link.symlink_to(target)
    qeval(*words, link, code=None)
    assert link.is_symlink()
    assert target.stat().st_size > 100
    qeval(*words, tmp_path / "nor" / "here" / "x.html", code=None)
    assert (tmp_path / "nor" / "here" / "x.html").stat().st_size > 100
    fifo = tmp_path / "fifo.html"
    os.mkfifo(fifo)
    done = qeval(*words, fifo, code=None)
    assert "Nothing reads from" in done.stderr
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_what_a_killed_process_had_begun_goes_with_the_next_write(tmp_path: Path) -> None:
    begun = [tmp_path / f".x.json.{end}" for end in ("abcd_123", "00000000")]
    others = [
        tmp_path / name for name in (".x.json.backup", ".y.json.abcd_123", "x.json.abcd_123", ".x.json")
    ]
    for file in (*begun, *others):
        file.write_text("half")
        os.utime(file, (1_000_000_000, 1_000_000_000))
    begun[1].write_text("another process is at it")
    write_atomic(tmp_path / "x.json", b"{}")
    assert {file for file in (*begun, *others) if file.exists()} == {begun[1], *others}


def test_what_another_machine_is_writing_stays_though_its_clock_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk's clock tells how old it is, and not that of whoever looks."""
    (tmp_path / ".x.json.abcd_123").write_text("half")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    write_atomic(tmp_path / "x.json", b"{}")
    assert (tmp_path / ".x.json.abcd_123").exists()


def test_what_goes_while_the_remains_are_looked_at_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = [tmp_path / f".x.json.{end}" for end in ("abcd_123", "00000000", "11111111")]
    for file in begun:
        file.write_text("half")
        os.utime(file, (1_000_000_000, 1_000_000_000))
    usual, closed = os.scandir, []

    class Scanned:
        """The entries, the first of which is gone when it is looked at."""

        def __enter__(self):
            self.all = usual(tmp_path)
            entries = sorted((one for one in self.all if one.name != "x.json"), key=lambda one: one.name)
            Path(entries[0]).unlink()
            return iter(entries)

        def __exit__(self, *_: object) -> None:
            self.all.close()
            closed.append(True)

    monkeypatch.setattr(os, "scandir", lambda _: Scanned())
    write_atomic(tmp_path / "x.json", b"{}")
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]
    assert closed == [True]


@pytest.mark.parametrize("links", [True, False])
def test_of_two_who_take_over_a_file_at_once_both_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """Threads of one process, or processes of two machines with the same number: the second one comes while
    the first has not yet given the file its name."""
    sources = [tmp_path / "one", tmp_path / "two"]
    for source in sources:
        source.write_text("the same")
    usual, left = os.link, sources[1:]

    def link(source: Path, name: Path) -> None:
        if not links:
            raise PermissionError
        usual(source, name)
        while left:
            link_or_copy(left.pop(), tmp_path / "there" / "x")

    def copy(source: Path, name: Path) -> None:
        Path(name).write_bytes(Path(source).read_bytes())
        while left:
            link_or_copy(left.pop(), tmp_path / "there" / "x")

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(files.shutil, "copyfile", copy)
    link_or_copy(sources[0], tmp_path / "there" / "x")
    assert [file.name for file in (tmp_path / "there").iterdir()] == ["x"]
    assert {file.read_text() for file in (*sources, tmp_path / "there" / "x")} == {"the same"}


def test_what_is_begun_in_a_run_is_removed_and_nothing_that_is_a_persons(tmp_path: Path) -> None:
    sha, end = "a" * 64, "abcd_123"
    begun = [
        f".run.json.{end}",
        f".lock.{end}",
        f"items/.{sha}.parquet.{end}",
        f"items/.{sha}.parquet.4711",
        f"cells/.01234567.{end}/samples.parquet",
        f"cells/.01234567.{end}.damaged/samples.parquet",
        f"cells/{sha}/.verified.json.{end}",
        f"shards/fp16/0/.12.shard.{end}",
    ]
    kept = [
        ".lock",
        ".git/config",
        ".gitignore",
        ".run.json.backup",
        ".DS_Store",
        f"cells/.0123.{end}",
        "run.json",
    ]
    for name in (*begun, *kept):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    remove_begun(tmp_path)
    assert sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()
    ) == sorted(kept)


class Listed(list):
    """What scandir gives, read to its end: its own iterator, and a context."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def __next__(self):
        if not self:
            raise StopIteration
        return self.pop(0)


def test_what_vanishes_while_it_is_looked_for_is_passed_over(tmp_path: Path, monkeypatch) -> None:
    begun, gone = tmp_path / "cells" / ".01234567.abcd_123", tmp_path / "cells" / ".01234567.efgh_456"
    for folder in (begun, gone):
        folder.mkdir(parents=True)
    scan = os.scandir

    def vanishes(place):
        found = scan(place)
        if gone.exists() and Path(place) == gone.parent:
            names = list(found)
            gone.rmdir()
            return Listed(names)
        return found

    monkeypatch.setattr(os, "scandir", vanishes)
    remove_begun(tmp_path)
    assert list((tmp_path / "cells").iterdir()) == []


def test_a_new_file_is_as_private_as_all_and_an_old_one_stays_so(tmp_path: Path, monkeypatch) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("x")
    old.chmod(0o640)
    lost = tmp_path / "lost"
    lost.touch()
    lost.chmod(0)
    monkeypatch.setattr(files, "_UMASK", 0o077)
    for file in (old, new, lost):
        write_atomic(file, b"y")
    made = build_directory(tmp_path / "d", lambda _: None)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (old, new, lost, made)] == [
        0o640,
        0o600,
        0o600,
        0o700,
    ]


@pytest.mark.slow
def test_nothing_that_a_command_writes_is_more_open_than_its_user_wants(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.umask(0o077)\n"
        "from qeval.cli.main import main\n"
        "main(['run', '--model', 'toy[items=20]', '--tasks', 'arc_easy', '--schemes', 'fp16'])"
    )
    place = tmp_path / "runs"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "QEVAL_RUNS_DIR": str(place)}, check=True)
    assert len(list(place.rglob("*"))) > 8
    assert [path for path in (place, *place.rglob("*")) if path.stat().st_mode & 0o077] == []
