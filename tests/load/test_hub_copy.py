"""A repository of the Hub is copied whole or not at all: asked of a stand-in that breaks as the Hub may."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from hub_stand_in import Hub, asked_by_this_process, serving

from qeval.base.errors import QevalError
from qeval.load import hub_copy
from qeval.load.hub_book import BOOK, Copy, copies, known, note
from qeval.load.hub_copy import Wanted, fetch
from qeval.load.hub_files import model_wanted

FILES = {
    "README.md": b"A model.",
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": bytes(range(256)) * 40,
    "tokenizer.json": b"{}" * 400,
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving() as hub:
        asked_by_this_process(monkeypatch, hub, tmp_path / "hub")
        yield hub


def got(to: Path, revision: str | None = None, repo: str = "org/name", gguf: str = "") -> tuple[Copy, bool]:
    return fetch(model_wanted(repo, revision, gguf), to, lambda _: None)


def test_a_copy_holds_the_files_and_tells_of_which_commit(hub: Hub, tmp_path) -> None:
    commit = hub.add("model", "org/name", FILES)
    copy, there = got(tmp_path / "to")
    assert (copy.commit, copy.place, there) == (commit, "models/org/name", False)
    folder = tmp_path / "to" / copy.place
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert copies(tmp_path / "to") == (copy,)
    assert not (tmp_path / "to" / hub_copy.PARTIAL).exists()


def test_what_is_there_is_not_fetched_again_and_what_was_changed_is(hub: Hub, tmp_path) -> None:
    hub.add("model", "org/name", FILES)
    got(tmp_path)
    hub.asked.clear()
    assert got(tmp_path)[1]
    assert hub.fetched() == []
    (tmp_path / "models/org/name/config.json").unlink()
    assert not got(tmp_path)[1]
    assert "config.json" in hub.fetched()
    assert "model.safetensors" not in hub.fetched()  # of the earlier copy, known by its hash
    assert got(tmp_path)[1]


def test_a_file_that_a_person_put_into_a_copy_is_never_replaced(hub: Hub, tmp_path) -> None:
    hub.add("model", "org/name", FILES)
    got(tmp_path)
    mine = tmp_path / "models/org/name/notes/mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert got(tmp_path)[1]  # nothing is to be replaced
    hub.add("model", "org/name", FILES | {"config.json": b"{}"})
    with pytest.raises(QevalError, match=r"mine\.txt', which qeval fetch did not write") as caught:
        got(tmp_path)
    assert "Move what is yours elsewhere" in caught.value.hint
    assert mine.read_text() == "mine"
    mine.with_name("other.txt").touch()
    with pytest.raises(QevalError, match=r"mine\.txt' and 1 more file, which qeval fetch"):
        got(tmp_path)
    mine.with_name("other.txt").unlink()
    mine.rename(tmp_path / "mine.txt")  # the remedy
    assert not got(tmp_path)[1]
    assert (tmp_path / "models/org/name/config.json").read_bytes() == b"{}"


def test_a_file_that_was_changed_is_fetched_again_and_what_it_held_is_kept(hub: Hub, tmp_path) -> None:
    hub.add("model", "org/name", FILES)
    got(tmp_path)
    (tmp_path / "models/org/name/config.json").write_text("mine")
    told = []
    fetch(model_wanted("org/name", None), tmp_path, told.append)
    assert (tmp_path / "models/org/name/config.json").read_bytes() == FILES["config.json"]
    [kept] = (tmp_path / hub_copy.CHANGED / "models/org/name").iterdir()
    assert kept.read_text() == "mine"
    assert any(str(kept) in line for line in told)
    assert got(tmp_path)[1]


def test_a_command_that_ended_in_the_middle_is_none_that_a_person_wrote(
    hub: Hub, tmp_path, monkeypatch
) -> None:
    """The old copy is still in its place, with a file that the new one has no more."""
    hub.add("model", "org/name", FILES | {"generation_config.json": b"{}"})
    got(tmp_path)
    hub.add("model", "org/name", FILES | {"tokenizer_config.json": b"{}"})
    with monkeypatch.context() as patch:
        patch.setattr(hub_copy, "_appear", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            got(tmp_path)
    assert not got(tmp_path)[1]
    assert got(tmp_path)[1]


def test_a_broken_stream_is_resumed_where_it_broke(hub: Hub, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)
    hub.add("model", "org/name", FILES)
    hub.breaks["model.safetensors"] = 2
    got(tmp_path)
    assert (tmp_path / "models/org/name/model.safetensors").read_bytes() == FILES["model.safetensors"]
    starts = [int(asked.removeprefix("model.safetensors ")) for asked in hub.ranges]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1]


def test_a_connection_that_stays_broken_leaves_nothing_that_looks_whole(hub: Hub, tmp_path) -> None:
    hub.add("model", "org/name", FILES)
    hub.status["model.safetensors"] = 503
    with pytest.raises(QevalError, match="org/name") as caught:
        got(tmp_path)
    assert "Run the same command again" in caught.value.hint
    assert not (tmp_path / "models").exists()
    assert copies(tmp_path) == ()
    hub.status.clear()
    hub.asked.clear()
    got(tmp_path)  # the remedy
    assert hub.fetched().count("model.safetensors") == 1
    assert "tokenizer.json" not in hub.fetched()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_arrives_with_another_byte_is_refused(hub: Hub, tmp_path, name) -> None:
    hub.add("model", "org/name", FILES)
    hub.spoilt = {name}
    with pytest.raises(QevalError, match=f"{name} of org/name did not arrive complete"):
        got(tmp_path)
    assert not (tmp_path / "models").exists()
    hub.spoilt = set()
    got(tmp_path)


@pytest.mark.parametrize(("token", "said"), [("", "no token is set"), ("hf_other", "has no access to it")])
def test_a_gated_model_says_what_opens_it(hub: Hub, tmp_path, monkeypatch, token, said) -> None:
    hub.add("model", "org/name", FILES, token="hf_right")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(QevalError, match="org/name is gated") as caught:
        got(tmp_path)
    assert said in caught.value.message
    assert "https://huggingface.co/org/name" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_right")  # the remedy
    got(tmp_path)
    assert "hf_right" not in (tmp_path / BOOK).read_text()


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_an_answer_without_a_name_is_a_sentence(hub: Hub, tmp_path, status) -> None:
    hub.add("model", "org/name", FILES)
    hub.status["config.json"] = status
    with pytest.raises(QevalError, match="org/name") as caught:
        got(tmp_path)
    assert caught.value.hint


def test_a_revision_is_pinned_and_lies_apart(hub: Hub, tmp_path) -> None:
    old = hub.add("model", "org/name", FILES)
    hub.add("model", "org/name", FILES | {"config.json": b'{"a": 1}'}, branch="act")
    hub.add("model", "org/name", FILES | {"config.json": b'{"new": 1}'})
    assert got(tmp_path, old)[0].commit == old
    assert (tmp_path / f"models/org/name--{old}/config.json").read_bytes() == FILES["config.json"]
    assert got(tmp_path, "act")[0].place == "models/org/name--act"
    assert len(copies(tmp_path)) == 2
    with pytest.raises(QevalError, match="org/name has no revision 'gone'"):
        got(tmp_path, "gone")


def test_a_newer_commit_takes_the_place_of_the_old_one_once_it_is_whole(hub: Hub, tmp_path) -> None:
    hub.add("model", "org/name", FILES)
    got(tmp_path)
    newer = hub.add("model", "org/name", FILES | {"config.json": b'{"new": 1}'})
    hub.status["config.json"] = 503
    with pytest.raises(QevalError):
        got(tmp_path)
    assert (tmp_path / "models/org/name/config.json").read_bytes() == FILES["config.json"]
    hub.status.clear()
    assert got(tmp_path)[0].commit == newer
    assert (tmp_path / "models/org/name/config.json").read_bytes() == b'{"new": 1}'
    assert known(tmp_path, "models/org/name").commit == newer


def test_a_repository_that_is_not_there_is_a_sentence(hub: Hub, tmp_path) -> None:
    with pytest.raises(QevalError, match="There is no model org/none on the Hub, or it is private"):
        got(tmp_path, repo="org/none")
    with pytest.raises(QevalError, match="not the name of a repository"):
        got(tmp_path, repo="a/b/c")
    hub.add("model", "org/empty", {".gitattributes": b"x"})
    with pytest.raises(QevalError, match="holds none of the files"):
        got(tmp_path, repo="org/empty")
    with pytest.raises(QevalError, match="There is no data set org/none"):
        fetch(Wanted("dataset", "org/none", "org/none", list), tmp_path, lambda _: None)


def test_a_file_outside_of_its_repository_is_refused(hub: Hub, tmp_path) -> None:
    hub.add("dataset", "org/name", FILES | {"a/../../../escaped.json": b"{}"})
    with pytest.raises(QevalError, match="names a file outside itself"):
        fetch(Wanted("dataset", "org/name", "org/name", list), tmp_path / "to", lambda _: None)
    assert not list(tmp_path.rglob("escaped.json"))


@pytest.mark.usefixtures("hub")
def test_a_hub_that_cannot_be_reached_is_a_sentence(tmp_path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        QevalError, match=r"The Hub cannot be reached \(.*\), so org/name was not fetched"
    ) as caught:
        got(tmp_path)
    assert "Check the network" in caught.value.hint
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(QevalError, match="HF_HUB_OFFLINE is set"):
        got(tmp_path)


def test_too_little_room_is_said_before_anything_is_fetched(hub: Hub, tmp_path, monkeypatch) -> None:
    hub.add("model", "org/name", FILES)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(QevalError, match=r"org/name takes 11 kB more, and the disk .* 100 B free"):
        got(tmp_path)
    assert hub.fetched() == []


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "is full"), (errno.EACCES, "cannot be written")])
def test_a_disk_that_refuses_on_the_way_is_a_sentence(hub: Hub, tmp_path, monkeypatch, number, said) -> None:
    hub.add("model", "org/name", FILES)

    def refuse(*_args, **_kwargs):
        raise OSError(number, "refused", str(tmp_path / "file"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(QevalError, match=said):
        got(tmp_path)
    assert not (tmp_path / "models").exists()


def test_two_commands_do_not_fetch_to_one_folder(tmp_path) -> None:
    with (
        hub_copy.alone(tmp_path),
        pytest.raises(QevalError, match="Another command is fetching"),
        hub_copy.alone(tmp_path),
    ):
        pass


def test_a_damaged_book_is_none(tmp_path) -> None:
    (tmp_path / BOOK).write_text("{")
    assert copies(tmp_path) == ()


def test_a_folder_that_nobody_fetched_is_left_alone(hub: Hub, tmp_path) -> None:
    hub.add("model", "org/name", FILES)
    own = tmp_path / "to/models/org/name/only.txt"
    own.parent.mkdir(parents=True)
    own.write_text("the only copy")
    with pytest.raises(QevalError, match="qeval fetch did not make it") as caught:
        got(tmp_path / "to")
    assert own.read_text() == "the only copy"
    assert hub.fetched() == []
    assert "--to" in caught.value.hint
    got(tmp_path / "other")  # the remedy
    kept = tmp_path / "kept"
    (tmp_path / "other/models/org/name").rename(kept)
    (tmp_path / "other/models/org/name").symlink_to(kept)
    with pytest.raises(QevalError, match="did not make it"):
        got(tmp_path / "other")
    assert (kept / "config.json").exists()


def test_a_command_that_ends_while_a_copy_appears_is_gone_on_with(hub: Hub, tmp_path, monkeypatch) -> None:
    hub.add("model", "org/name", FILES)
    told = []

    def ended(to, copy) -> None:
        told.append(copy.commit)
        if copy.commit:
            raise KeyboardInterrupt
        note(to, copy)

    monkeypatch.setattr(hub_copy, "note", ended)
    with pytest.raises(KeyboardInterrupt):
        got(tmp_path)
    assert (tmp_path / "models/org/name").exists()
    assert told[0] == known(tmp_path, "models/org/name").commit == ""
    monkeypatch.undo()
    with serving() as other:
        asked_by_this_process(monkeypatch, other, tmp_path / "hub")
        other.add("model", "org/name", FILES)
        assert got(tmp_path)[0].commit


def test_another_file_of_a_repository_is_fetched_beside_the_first(hub: Hub, tmp_path) -> None:
    weights = {"a.Q4.gguf": b"4" * 600, "a.Q8.gguf": b"8" * 900}
    hub.add("model", "org/name", {"config.json": b"{}", "model.safetensors": b"w" * 700} | weights)
    for gguf, there in (("", set()), ("a.Q4.gguf", {"a.Q4.gguf"}), ("a.Q8.gguf", {*weights})):
        copy, already = got(tmp_path, gguf=gguf)
        assert not already
        assert set(copy.files) == {"config.json", "model.safetensors", *there}
    assert got(tmp_path, gguf="a.Q4.gguf")[1]
    assert got(tmp_path)[1]


def test_a_byte_that_was_changed_since_is_noticed(hub: Hub, tmp_path) -> None:
    hub.add("model", "org/name", FILES)
    got(tmp_path)
    for name in ("config.json", "model.safetensors"):
        file = tmp_path / "models/org/name" / name
        file.write_bytes(bytes([FILES[name][0] ^ 1]) + FILES[name][1:])
        assert not got(tmp_path)[1]
        assert file.read_bytes() == FILES[name]
        assert got(tmp_path)[1]
