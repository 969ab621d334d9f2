"""How qeval came here decides what a message prints, and a run names the commit behind it."""

from __future__ import annotations

import json
import shlex
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from qeval import __version__
from qeval.base import installed
from qeval.base.installed import Origin

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """qeval as it lies in site-packages, with what pip noted of its origin."""
    monkeypatch.setattr(installed, "_CHECKOUT", tmp_path / "site-packages")

    def noted(url=None, **lines) -> None:
        told = None if url is None else json.dumps(url)
        found = SimpleNamespace(read_text=lambda _: told)
        monkeypatch.setattr(metadata, "distribution", lambda _: found)
        texts = [f"{name}, {value}" for name, value in lines.items()]
        monkeypatch.setattr(metadata, "metadata", lambda _: SimpleNamespace(get_all=lambda _: texts))

    return noted


@pytest.mark.parametrize(
    ("url", "origin", "command"),
    [
        (None, Origin("index"), "pip install 'qeval[bnb]'"),
        (
            {"url": "file:///w/qeval-1.whl", "archive_info": {}},
            Origin("wheel", "file:///w/qeval-1.whl"),
            "pip install 'qeval[bnb] @ file:///w/qeval-1.whl'",
        ),
        (
            {"url": "https://h.org/q.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}},
            Origin("address", f"git+https://h.org/q.git@{COMMIT}"),
            f"pip install 'qeval[bnb] @ git+https://h.org/q.git@{COMMIT}'",
        ),
        (
            {"url": "file:///home/me/qeval", "dir_info": {"editable": False}},
            Origin("checkout", "/home/me/qeval"),
            "pip install '.[bnb]'",
        ),
    ],
)
def test_the_command_is_for_how_it_was_installed(elsewhere, url, origin, command) -> None:
    elsewhere(url)
    assert installed.origin() == origin
    assert installed.command("bnb") == command
    assert installed.remedy("bnb").endswith(f"it with: {command}")


def test_without_a_note_or_with_a_damaged_one_it_is_of_the_index(elsewhere, monkeypatch) -> None:
    elsewhere()
    monkeypatch.setattr(metadata, "distribution", lambda _: SimpleNamespace(read_text=lambda _: "{"))
    assert installed.origin() == Origin("index")

    def missing(_):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "distribution", missing)
    assert installed.origin() == Origin("index")


def test_in_a_checkout_the_command_can_be_typed_anywhere(tmp_path, monkeypatch) -> None:
    assert installed.origin() == Origin("checkout", str(Path(__file__).parents[2]))
    monkeypatch.chdir(installed.origin().place)
    assert installed.remedy_here("bnb") == "pip install '.[bnb]'"
    monkeypatch.chdir(tmp_path)
    assert (
        installed.remedy_here("bnb") == f"cd {shlex.quote(installed.origin().place)} && pip install '.[bnb]'"
    )
    words = installed.remedy("gptq", isolated=False)
    assert words == f"In qeval's checkout, install it with: {installed.NOT_ISOLATED}'.[gptq]'"


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A checkout with one commit."""
    (tmp_path / "qeval").mkdir()
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'qeval'\n")
    (tmp_path / "qeval/a.py").write_text("")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "one")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(installed, "_CHECKOUT", tmp_path)
    return tmp_path


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(checkout) -> None:
    words = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    assert installed.version() == f"{__version__}+g{commit[:12]}"
    (checkout / "notes.txt").write_text("no part of qeval")
    assert installed.version() == f"{__version__}+g{commit[:12]}"
    (checkout / "qeval/a.py").write_text("changed = True\n")
    assert installed.version() == f"{__version__}+g{commit[:12]}.dirty"


def test_a_copy_of_a_checkout_is_of_no_commit_and_an_editable_one_is(
    checkout, elsewhere, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(installed, "_CHECKOUT", tmp_path / "site-packages")
    elsewhere({"url": f"file://{checkout}", "dir_info": {}})
    assert installed.origin() == Origin("checkout", str(checkout))
    assert installed.version() == __version__
    elsewhere({"url": f"file://{checkout}", "dir_info": {"editable": True}})
    assert installed.version().startswith(f"{__version__}+g")


def test_new_files_count_as_changes_whatever_git_is_told_to_show(checkout) -> None:
    words = ["git", "-C", str(checkout), "config", "status.showUntrackedFiles", "no"]
    subprocess.run(words, check=True)
    assert not installed.version().endswith(".dirty")
    (checkout / "qeval/new.py").write_text("")
    assert installed.version().endswith(".dirty")


def test_no_commit_where_git_does_not_tell_what_was_changed(checkout, monkeypatch) -> None:
    asked = installed._git

    def fails(folder: str, *words: str) -> str | None:
        return None if words[0] == "status" else asked(folder, *words)

    monkeypatch.setattr(installed, "_git", fails)
    assert installed.version() == __version__
    assert checkout.is_dir()


def test_without_git_the_version_is_what_is_known(checkout, elsewhere, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert installed.version() == __version__
    elsewhere({"url": "https://h.org/q.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}})
    assert installed.version() == f"{__version__}+g{COMMIT[:12]}"
    elsewhere()
    assert installed.version() == __version__
    assert checkout.is_dir()


def test_the_same_version_is_installed_by_its_commit(checkout) -> None:
    told = "0.1.0+g0123456789ab"
    assert installed.same_version("0.1.0") == ("pip install .", "in a checkout of version 0.1.0")
    assert installed.same_version("") == ("", "")
    expected = ("git checkout 0123456789ab && pip install .", "in a checkout of qeval")
    assert installed.same_version(told) == expected
    dirty = installed.same_version(f"{told}.dirty")
    assert dirty == (expected[0], "in a checkout of qeval; it had changes that are in no commit")
    several = installed.same_version(f"0.1.0, {told}")
    assert several == (expected[0], f"{expected[1]}; parts of the run were scored by 0.1.0")
    urls = "[project.urls]\nRepository = 'https://h.org/q'\n"
    (checkout / "pyproject.toml").write_text(f"[project]\nname = 'qeval'\n{urls}")
    assert installed.same_version(told) == ("pip install 'qeval @ git+https://h.org/q@0123456789ab'", "")


def test_a_wheel_tells_the_address_in_its_metadata(elsewhere) -> None:
    elsewhere(Homepage="https://h.org", Source="https://h.org/q")
    assert installed.url() == "https://h.org/q"
    elsewhere()
    assert installed.url() == ""


def test_a_run_names_the_commit() -> None:
    from qeval.report.facts import commands
    from qeval.run import keeping

    assert keeping.installed is installed
    run = SimpleNamespace(
        qeval_version="0.1.0+g0123456789ab",
        command=("qeval", "run"),
        id="r",
        results=(),
        suite=None,
        source="qeval",
    )
    assert dict(commands(run))["Install the same version (in a checkout of qeval)"].startswith("git checkout")
