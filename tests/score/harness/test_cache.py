"""What was built once is not built again, and nothing that shapes it can change unnoticed."""

import copy
import shutil
from dataclasses import asdict

import numpy as np
import pytest

from qeval.base.records import Task
from qeval.score.engine.requests import Answer
from qeval.score.harness import cache, door, prompts

pytestmark = pytest.mark.torch

NAMES = ["fix_letters", "fix_endings", "fix_mass", "fix_pages", "fix_sums"]


def prepare(tokenizer, fixtures, cache_dir, names=NAMES, **options):
    options = {"max_length": 150, **options}
    tasks = [Task(name, "", num_fewshot=None) for name in names]
    return door.prepare(tasks, tokenizer, tasks_dir=fixtures, cache_dir=cache_dir, **options)


@pytest.fixture
def builds(monkeypatch):
    """The names of the tasks that were built, in order."""
    names = []
    build = prompts.build

    def counted(leaf, *args, **options):
        names.append(leaf.task.name)
        return build(leaf, *args, **options)

    monkeypatch.setattr(prompts, "build", counted)
    return names


def answers(part):
    if part.generates:
        return [str(at) for at in range(part.n)]
    draw = np.random.default_rng(1)
    return [Answer(float(-9 * draw.random()), bool(draw.random() < 0.5)) for _ in part.requests]


def same(a, b):
    assert a.task == b.task
    assert (a.n, a.n_available, a.version, a.dataset) == (b.n, b.n_available, b.version, b.dataset)
    assert (a.truncated, a.generates, a.repeats) == (b.truncated, b.generates, b.repeats)
    assert len(a.requests) == len(b.requests)
    for one, other in zip(a.requests, b.requests, strict=True):
        assert np.array_equal(one.tokens, other.tokens)
        assert one.tokens.dtype == other.tokens.dtype
        assert one.n_scored == other.n_scored
    assert door.items(a) == door.items(b)
    first, second = door.collect(a, answers(a)), door.collect(b, answers(b))
    assert first.metrics == second.metrics
    for name, column in asdict(first.samples).items():
        assert column.tolist() == getattr(second.samples, name).tolist()


def test_what_comes_from_the_cache_is_what_was_built(plain_tokenizer, fixtures, tmp_path, builds):
    built = prepare(plain_tokenizer, fixtures, tmp_path)
    assert builds == NAMES
    kept = prepare(plain_tokenizer, fixtures, tmp_path)
    assert builds == NAMES
    for a, b in zip(built, kept, strict=True):
        same(a, b)


@pytest.mark.parametrize("change", ["seed", "max_length", "shots", "limit", "metric", "chat"])
def test_every_setting_that_shapes_a_request_has_an_entry_of_its_own(
    change, plain_tokenizer, fixtures, tmp_path, builds
):
    tokenizer = copy.deepcopy(plain_tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    task = Task("fix_endings", "acc", num_fewshot=1, limit=5)
    base = {"max_length": 150, "tasks_dir": fixtures, "cache_dir": tmp_path}
    other = {
        "seed": (task, {"seed": 5}),
        "max_length": (task, {"max_length": 151}),
        "shots": (Task("fix_endings", "acc", num_fewshot=2, limit=5), {}),
        "limit": (Task("fix_endings", "acc", num_fewshot=1, limit=6), {}),
        "metric": (Task("fix_endings", "acc_norm", num_fewshot=1, limit=5), {}),
        "chat": (task, {"chat_template": True}),
    }[change]
    door.prepare([task], tokenizer, **base)
    door.prepare([other[0]], tokenizer, **{**base, **other[1]})
    assert builds == ["fix_endings", "fix_endings"]


def test_another_tokenizer_has_entries_of_its_own(plain_tokenizer, fixtures, tmp_path, builds):
    other = copy.deepcopy(plain_tokenizer)
    other.add_tokens(["otter"])
    prepare(plain_tokenizer, fixtures, tmp_path, ["fix_letters"])
    prepare(other, fixtures, tmp_path, ["fix_letters"])
    assert builds == ["fix_letters", "fix_letters"]
    assert cache.fingerprint(plain_tokenizer) != cache.fingerprint(other)


def test_padding_once_does_not_make_another_tokenizer(plain_tokenizer):
    tokenizer = copy.deepcopy(plain_tokenizer)
    before = cache.fingerprint(tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer(["a", "a longer text"], padding=True, truncation=True, max_length=4)
    assert cache.fingerprint(tokenizer) == before


@pytest.mark.parametrize("file", ["endings_test.jsonl", "helpers.py", "endings.yaml"])
def test_a_changed_file_of_the_task_is_noticed(file, plain_tokenizer, fixtures, tmp_path, builds):
    own = tmp_path / "tasks"
    shutil.copytree(fixtures, own)
    prepare(plain_tokenizer, own, tmp_path, ["fix_endings"])
    text = (own / file).read_text()
    change = {
        "endings_test.jsonl": ("dusk", "dawn"),
        "helpers.py": (".capitalize()", ".upper()"),
        "endings.yaml": ('"{{begin}}"', '"So: {{begin}}"'),
    }[file]
    (own / file).write_text(text.replace(*change))
    (prepared,) = prepare(plain_tokenizer, own, tmp_path, ["fix_endings"])
    assert builds == ["fix_endings", "fix_endings"]
    word = {"endings_test.jsonl": "dawn", "helpers.py": "DUSK", "endings.yaml": "So: "}[file]
    assert word in door.items(prepared)[0].prompt


@pytest.mark.parametrize("damage", ["half", "empty", "flipped", "text"])
def test_a_damaged_file_is_built_again(damage, plain_tokenizer, fixtures, tmp_path, builds):
    (built,) = prepare(plain_tokenizer, fixtures, tmp_path, ["fix_letters"])
    (file,) = (tmp_path / "requests").glob("*.npz")
    data = file.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    file.write_bytes({"half": data[:middle], "empty": b"", "flipped": flipped, "text": b"no zip"}[damage])
    (again,) = prepare(plain_tokenizer, fixtures, tmp_path, ["fix_letters"])
    assert builds == ["fix_letters", "fix_letters"]
    same(built, again)
    prepare(plain_tokenizer, fixtures, tmp_path, ["fix_letters"])
    assert builds == ["fix_letters", "fix_letters"]


def test_a_place_that_takes_no_files_only_costs_time(plain_tokenizer, fixtures, tmp_path, builds):
    blocked = tmp_path / "file"
    blocked.write_text("")
    prepare(plain_tokenizer, fixtures, blocked, ["fix_letters"])
    prepare(plain_tokenizer, fixtures, blocked, ["fix_letters"])
    assert builds == ["fix_letters", "fix_letters"]


def test_documents_that_are_not_plain_data_are_not_kept():
    assert cache._packed([{"a": (1, 2)}]) is None
    assert cache._packed([{"a": object()}]) is None
    assert cache._packed([{"a": [1, None, "x", 2.5]}]) is not None
