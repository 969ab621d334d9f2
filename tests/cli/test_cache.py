"""`qeval cache`: what is kept, how large it is, and that nothing goes that is used or lies elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from qeval.cli import cache as command
from qeval.cli.main import main
from qeval.store import cache as store

HASH = "cab" + "a2" * 24
DAY = 86_400.0
HOLD = (
    "import sys, pathlib; from qeval.base import uses; uses.hold(pathlib.Path(sys.argv[1]));"
    " print('held', flush=True); sys.stdin.read()"
)


def put(path: Path, size: int, days: float = 0.0) -> Path:
    """A file, used so many days ago, as its folder then is too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    os.utime(path.parent, (then, then))
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("QEVAL_CACHE_DIR", str(place))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    for name in ("old-gptq-1", "new-gptq-2"):
        put(place / f"checkpoints/{name}/qeval.json", 10)
    put(place / "fidelity/abc/kept.json", 10, 40)
    put(place / "checkpoints/old-gptq-1/model.safetensors", 50_000, 40)
    put(place / "checkpoints/new-gptq-2/model.safetensors", 90_000, 2)
    put(place / "checkpoints/.half-gptq-3.partial-abc_d1/model.safetensors", 10_000, 50)
    put(place / "checkpoints/.half-gptq-3.blocks/block-0000.safetensors", 10_000, 50)
    put(place / "checkpoints/.old-gptq-1.lock", 0)
    put(place / "models/smollm2-135m-instruct-1.0-1/model.safetensors", 20_000, 40)
    put(place / "fidelity/abc/inputs.bin", 30_000, 40)
    put(place / "requests/a.npz", 5_000, 1)
    put(place / "requests/b.npz", 5_000, 31)
    put(place / "contents.json", 10)
    put(tmp_path / f"inductor/ab/{HASH}.py", 1_000, 40)
    return place


def run(*words: str, **more) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["cache", *words], **more)
    return done.exit_code, done.stdout, done.stderr


def listed(*words: str) -> dict[str, tuple[str, bool]]:
    code, out, _ = run("--json", *words)
    assert code == 0
    return {Path(one["path"]).name: (one["state"], one["removed"]) for one in json.loads(out)["entries"]}


def test_every_kind_is_listed_with_its_size(cache: Path) -> None:
    assert set(command.KINDS) == set(store.KINDS)
    code, out, _ = run()
    assert code == 0
    rows = [line.split() for line in out.splitlines()[2:-2]]
    assert [row[0] for row in rows] == [
        *("checkpoints",) * 4,
        "models",
        "inputs",
        "compiled",
        "requests",
    ]
    assert "new-gptq-2" in out
    assert "2 tokenised tasks" in out
    assert out.splitlines()[-1].startswith("9 entries, ")
    assert all(
        len(line) <= 80 for line in out.splitlines() if line[:1] != "-" and str(cache.parent) not in line
    )
    total = json.loads(run("--json")[1])["bytes"]
    assert 220_000 < total < 320_000  # a disk gives whole blocks, and folders take some


def test_nothing_goes_without_a_yes(cache: Path) -> None:
    before = sorted(cache.rglob("*"))
    code, out, err = run("--prune", "--older-than", "30d")
    assert code == 0
    assert "old-gptq-1" in out
    assert "new-gptq-2" not in out
    assert "Nothing was removed." in err
    assert "add --yes" in err
    assert sorted(cache.rglob("*")) == before


@pytest.mark.parametrize(("answer", "stays"), [("y\n", False), ("n\n", True)])
def test_a_person_is_asked(cache: Path, monkeypatch, answer: str, stays: bool) -> None:
    monkeypatch.setattr(
        command, "sys", type("Sys", (), {"stdin": type("In", (), {"isatty": lambda _: True})()})
    )
    code, _, err = run("--prune", "--kind", "models", input=answer)
    assert code == 0
    assert "Remove 1 entry, " in err
    assert (cache / "models/smollm2-135m-instruct-1.0-1").exists() is stays


def test_what_was_not_used_for_long_goes(cache: Path) -> None:
    code, out, _ = run("--prune", "--older-than", "30d", "--yes")
    assert code == 0
    assert out.startswith("Removed 6 entries, ")
    left = {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}
    assert {name for name in left if not name.endswith(".lock")} == {
        "checkpoints/new-gptq-2/qeval.json",
        "checkpoints/new-gptq-2/model.safetensors",
        "requests/a.npz",
        "contents.json",
    }
    assert (cache.parent / f"inductor/ab/{HASH}.py").exists()
    assert run("--prune", "--older-than", "30d", "--yes")[1] == "There is nothing to remove.\n"


def test_what_is_older_than_a_limit_is_shown_older_than_that(cache: Path) -> None:
    put(cache / "models/other-1/model.safetensors", 10, 2.25)
    _, out, _ = run("--older-than", "50h")
    line = next(line for line in out.splitlines() if "other-1" in line)
    assert "2 days 6 hours ago" in line
    _, out, _ = run()
    assert "2 days ago" in next(line for line in out.splitlines() if "other-1" in line)


def test_one_kind_alone_and_every_age(cache: Path) -> None:
    gone = {
        name for name, (_, removed) in listed("--prune", "--yes", "--kind", "requests").items() if removed
    }
    assert gone == {"a.npz", "b.npz"}
    assert (cache / "checkpoints/old-gptq-1").exists()


def test_what_another_command_uses_stays(cache: Path) -> None:
    held = [cache / "checkpoints/old-gptq-1", cache / "checkpoints/half-gptq-3", cache / "compiled"]
    others = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for path in held
    ]
    try:
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
        told = listed("--prune", "--yes") | listed("--prune", "--yes", "--kind", "compiled")
        in_use = {name for name, (state, _) in told.items() if state == "in use"}
        assert in_use == {"old-gptq-1", ".half-gptq-3.blocks", ".half-gptq-3.partial-abc_d1", "inductor"}
        assert not any(told[name][1] for name in in_use)
        assert (cache / "checkpoints/old-gptq-1/model.safetensors").exists()
        assert not (cache / "checkpoints/new-gptq-2").exists()
    finally:
        for other in others:
            other.kill()
            other.communicate()


@pytest.mark.usefixtures("cache")
def test_what_compilers_keep_goes_by_name_alone_and_nothing_beside_it(tmp_path) -> None:
    precious = [
        put(tmp_path / name, 10, 90)
        for name in ("triton/notes.txt", "triton/project/a.py", "triton/triton/setup.py", "inductor/db/a.sql")
    ]
    kernel = put(tmp_path / f"triton/{'A2' * 26}/kernel.cubin", 10, 90)
    assert "inductor" in listed()
    assert "compiled" not in run("--prune")[1]
    assert not listed("--prune", "--yes").keys() & {"inductor", "triton"}
    assert kernel.exists()
    told = listed("--prune", "--yes", "--kind", "compiled")
    assert told == {"inductor": ("", True), "triton": ("", True)}
    assert not kernel.parent.exists()
    assert all(path.exists() for path in precious)
    assert not (tmp_path / "inductor/ab").exists()
    assert listed("--kind", "compiled") == {}


def test_a_folder_that_is_not_ours_is_left_alone(cache: Path) -> None:
    foreign = ("checkpoints/mine/model.safetensors", "models/org/name/config.json", "fidelity/notes/a.txt")
    for name in foreign:
        put(cache / name, 10, 90)
    told = listed("--prune", "--yes")
    assert {told[name] for name in ("mine", "org", "notes")} == {("not qeval's", False)}
    assert told["old-gptq-1"] == ("", True)
    assert all((cache / name).exists() for name in foreign)


def test_no_link_is_followed(cache: Path, tmp_path) -> None:
    outside = put(tmp_path / "outside/precious.txt", 70_000, 90)
    (cache / "checkpoints/linked").symlink_to(outside.parent)
    (cache / "checkpoints/new-gptq-2/inner").symlink_to(outside.parent)
    (cache / "models/smollm2-135m-instruct-1.0-1").rename(tmp_path / "real")
    (cache / "models").rmdir()
    (cache / "models").symlink_to(tmp_path / "real")
    told = listed("--prune", "--yes")
    assert told["linked"] == ("link", False)
    assert told["models"] == ("link", False)
    assert told["new-gptq-2"] == ("", True)
    assert outside.read_bytes() == b"x" * 70_000
    assert (tmp_path / "real/model.safetensors").exists()
    assert (cache / "checkpoints/linked").is_symlink()
    sizes = {Path(one["path"]).name: one["bytes"] for one in json.loads(run("--json")[1])["entries"]}
    assert sizes["linked"] < 5_000


def test_a_command_that_is_killed_leaves_nothing_that_looks_whole(cache: Path, monkeypatch) -> None:
    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    assert run("--prune", "--yes", "--kind", "models")[0] == 130
    assert not (cache / "models/smollm2-135m-instruct-1.0-1").exists()
    monkeypatch.undo()
    monkeypatch.setenv("QEVAL_CACHE_DIR", str(cache))
    (name,) = (one.name for one in (cache / "models").iterdir() if not one.name.endswith(".lock"))
    assert listed("--kind", "models") == {name: ("unfinished", False)}
    run("--prune", "--yes", "--kind", "models")
    assert listed("--kind", "models") == {}


def test_an_empty_cache_and_a_word_that_is_no_age(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("QEVAL_CACHE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    assert run() == (0, f"There is nothing in {tmp_path / 'none'}.\n", "")
    code, _, err = run("--older-than", "soon")
    assert code == 2
    assert "--older-than 'soon' is not an age." in err


@pytest.mark.torch
def test_compilers_keep_theirs_where_torch_says(monkeypatch) -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    from qeval.base.places import compiler_caches

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert str(compiler_caches()[0]) == default_cache_dir()
