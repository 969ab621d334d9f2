"""Which files of a repository are needed."""

from __future__ import annotations

import pytest
from hub_stand_in import asked_by_this_process, serving

from qeval.base.errors import QevalError
from qeval.base.records import Task
from qeval.load.hub_copy import fetch
from qeval.load.hub_files import SetNeeded, joined, of_model, set_wanted
from qeval.score.harness.leaves import Leaf
from qeval.score.harness.sources import commit_of, pin_notes

CARD = b"""---
license: mit
configs:
- config_name: large
  data_files:
  - split: test
    path: large/test-*
- config_name: small
  data_files:
  - split: train
    path:
    - small/train-*
  - split: test
    path: small/test.jsonl
---
What it is.
"""
SET = {
    "README.md": CARD,
    ".gitattributes": b"x",
    "large/test-0.jsonl": b'{"text": "large"}\n' * 100,
    "small/train-0.jsonl": b'{"text": "first"}\n',
    "small/train-1.jsonl": b'{"text": "second"}\n',
    "small/test.jsonl": b'{"text": "small"}\n',
}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (
            ["config.json", "model.safetensors", "pytorch_model.bin", "original/consolidated.00.pth"],
            ["config.json", "model.safetensors"],
        ),
        (
            [
                "consolidated.safetensors",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (
            ["gptq_model-4bit-128g.safetensors", "README.md"],
            ["gptq_model-4bit-128g.safetensors", "README.md"],
        ),
        (["pytorch_model.bin", "training_args.bin", "onnx/model.bin"], ["pytorch_model.bin"]),
        (
            ["adapter_model.safetensors", "adapter_config.json"],
            ["adapter_model.safetensors", "adapter_config.json"],
        ),
        (
            [".gitattributes", "LICENSE.txt", "notes.md", "image.png", "code/a.py"],
            ["LICENSE.txt", "code/a.py"],
        ),
    ],
)
def test_one_format_of_weights_and_what_loading_reads_beside_it(names, chosen) -> None:
    assert of_model(names) == chosen


def test_of_gguf_files_only_the_one_named() -> None:
    names = ["a.Q4_K_M.gguf", "a.Q8_0.gguf", "config.json"]
    assert of_model(names, "a.Q8_0.gguf") == ["a.Q8_0.gguf", "config.json"]
    assert of_model(names) == names


def test_needs_of_one_data_set_are_one() -> None:
    needs = [
        SetNeeded("a/b", frozenset({"x"})),
        SetNeeded("c/d", whole=True),
        SetNeeded("a/b", frozenset({"y"})),
    ]
    assert joined(needs) == (SetNeeded("a/b", frozenset({"x", "y"})), SetNeeded("c/d", whole=True))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving() as hub:
        asked_by_this_process(monkeypatch, hub, tmp_path / "hub")
        hub.add("dataset", "org/set", SET)
        yield hub


def names(folder) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).as_posix().startswith(".")
    }


def got(need: SetNeeded, to) -> set[str]:
    copy, _ = fetch(set_wanted(need, to), to, lambda _: None)
    return names(to / copy.place)


def test_only_the_configurations_that_are_read_and_a_card_that_tells_of_them(hub, tmp_path) -> None:
    to = tmp_path / "to"
    small = {"README.md", "small/train-0.jsonl", "small/train-1.jsonl", "small/test.jsonl"}
    assert got(SetNeeded("org/set", frozenset({"small"})), to) == small
    card = (to / "org/set/README.md").read_text()
    assert "config_name: large" not in card
    assert "license: mit" in card
    assert "What it is." in card
    # what was fetched stays wanted
    assert got(SetNeeded("org/set", frozenset({"large"})), to) == {*small, "large/test-0.jsonl"}
    hub.asked.clear()
    got(SetNeeded("org/set", frozenset({"small"})), to)
    assert hub.fetched() == []


def test_all_of_it_where_the_card_does_not_tell_parts_apart(hub, tmp_path) -> None:
    everything = set(SET) - {".gitattributes"}
    for place, need in enumerate(
        (
            SetNeeded("org/set", frozenset({None})),
            SetNeeded("org/set", frozenset({"small", "unknown"})),
            SetNeeded("org/set", frozenset({"small"}), whole=True),
        )
    ):
        assert got(need, tmp_path / str(place)) == everything
    hub.add("dataset", "org/bare", {"data.jsonl": b"{}\n"})
    assert got(SetNeeded("org/bare", frozenset({None})), tmp_path / "bare") == {"data.jsonl"}


@pytest.mark.usefixtures("hub")
def test_of_a_set_that_is_streamed_the_first_file_of_each_split(tmp_path) -> None:
    found = got(SetNeeded("org/set", frozenset({"small"}), first=True), tmp_path / "to")
    assert found == {"README.md", "small/train-0.jsonl", "small/test.jsonl"}


@pytest.mark.torch
@pytest.mark.usefixtures("hub")
def test_the_data_sets_library_reads_the_copy(tmp_path, monkeypatch) -> None:
    from datasets import config, load_dataset

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    got(SetNeeded("org/set", frozenset({"small"})), tmp_path / "to")
    rows = load_dataset(str(tmp_path / "to/org/set"), "small")
    assert {split: list(part["text"]) for split, part in rows.items()} == {
        "train": ["first", "second"],
        "test": ["small"],
    }


def test_one_folder_holds_one_revision_of_a_set(hub, tmp_path) -> None:
    old = hub.add("dataset", "org/set", SET, branch="old")
    new = hub.add("dataset", "org/set", SET | {"small/test.jsonl": b"{}\n"})
    to = tmp_path / "to"
    got(SetNeeded("org/set", frozenset({"small"}), revision="old"), to)
    for other in (None, new):
        with pytest.raises(QevalError, match=f"holds old {old[:12]}") as caught:
            got(SetNeeded("org/set", frozenset({"small"}), revision=other), to)
        assert "--to" in caught.value.hint
    got(SetNeeded("org/set", frozenset({"small"})), tmp_path / "other")  # the remedy
    hub.add("dataset", "org/set", SET | {"small/test.jsonl": b"{1}\n"})
    got(SetNeeded("org/set", frozenset({"small"})), tmp_path / "other")  # a newer one takes its place
    with pytest.raises(QevalError, match="needed at old"):
        got(SetNeeded("org/set", frozenset({"small"}), revision="old"), tmp_path / "other")


def test_a_commit_is_named_only_of_a_copy_that_still_holds_it(hub, tmp_path) -> None:
    commit = hub.add("dataset", "org/set", SET)
    to = tmp_path / "to"
    got(SetNeeded("org/set", frozenset({"small"})), to)
    assert commit_of(None, "org/set", to) == commit
    changed = to / "org/set/small/test.jsonl"
    changed.write_bytes(changed.read_bytes().replace(b"small", b"SMALL"))
    assert commit_of(None, "org/set", to) is None


def test_a_mirror_of_another_revision_than_a_task_names_is_told(hub, tmp_path) -> None:
    old = hub.add("dataset", "org/set", SET, branch="old")
    to, need = tmp_path / "to", frozenset({"small"})
    got(SetNeeded("org/set", need, revision="old"), to)

    def told(pin: str | None, path: str = "org/set") -> tuple[str, ...]:
        config = {"dataset_path": path, "dataset_kwargs": {"revision": pin} if pin else None}
        return pin_notes(Leaf(Task("mine", "acc"), config, None), to)

    other = "0123456789abcdef" * 2 + "01234567"
    assert told(None) == told("old") == told(old) == told(old[:10]) == told(other, "org/none") == ()
    assert told(other) == (f"it asks for revision {other} of org/set, and the mirror holds {old}.",)
    assert told("main") == (
        f"it asks for revision main of org/set; whether the mirror's {old} is that is not known.",
    )
    (to / "org/set/small/test.jsonl").write_bytes(b"{}")  # by hand
    assert told(old) == (f"it asks for revision {old} of org/set; which one the mirror holds is not known.",)
