"""Names of tasks are found without lm-eval, and they are the ones that lm-eval would find."""

import subprocess
import sys

import pytest

from qeval.score.harness import catalogue


def test_names_of_the_tests_own_tasks(fixtures):
    found = catalogue.scan(fixtures)
    assert {"fix_letters", "fix_all", "fix_stories", "fix_other", "fix_sums"} <= found.names
    assert found.tags["fix_other"] == ("fix_mass", "fix_mutual")
    assert found.tags["fix_stories"] == ("fix_endings", "fix_several")  # through the file they include
    assert "fix_all_reading" not in found.names  # made in place, not to be asked for


@pytest.fixture(scope="module")
def noted(tmp_path_factory):
    """A directory with a note of lm-eval's own tasks, whose 14 000 files are thus read once for all tests."""
    folder = tmp_path_factory.mktemp("noted")
    catalogue.known_tasks(None, folder)
    return folder


@pytest.mark.slow
def test_stock_tasks_are_known_and_own_ones_come_first(tmp_path, noted):
    (tmp_path / "mine.yaml").write_text("task: arc_challenge\n")
    both = catalogue.catalogue(tmp_path, noted)
    assert {"mmlu", "mmlu_anatomy", "mmlu_stem_tasks", "hellaswag", "ai2_arc"} <= both.names
    assert both.files["arc_challenge"] == str(tmp_path / "mine.yaml")


@pytest.mark.slow
def test_neither_lm_eval_nor_torch_is_imported(fixtures, noted):
    code = (
        "import sys; from pathlib import Path; from qeval.score.harness.catalogue import known_tasks;"
        "assert {'mmlu', 'fix_all'} <= known_tasks(Path(sys.argv[1]), Path(sys.argv[2]));"
        "print(sorted({'torch','lm_eval','datasets'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code, str(fixtures), str(noted)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_note_on_disk_saves_the_search(tmp_path, fixtures, monkeypatch):
    monkeypatch.setattr(catalogue, "_stock_root", lambda: fixtures)
    catalogue._stock.cache_clear()
    first = catalogue.catalogue(None, tmp_path)
    (note,) = tmp_path.iterdir()
    catalogue._stock.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "scan", lambda _: pytest.fail("searched again"))
        assert catalogue.catalogue(None, tmp_path) == first
    catalogue._stock.cache_clear()
    note.write_text("{")
    assert catalogue.catalogue(None, tmp_path) == first
    catalogue._stock.cache_clear()


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (b"one", ["one"]),
        (b"'one' # why", ["one"]),
        (b'[one, "two"]', ["one", "two"]),
        (b"\n  - one\n  - 'two' # why\n", ["one", "two"]),
        (b"", []),
    ],
)
def test_yaml_scalars_and_lists(text, items):
    assert catalogue._items(text) == items


@pytest.mark.slow
@pytest.mark.torch
def test_all_names_tags_and_files_are_those_of_lm_evals_own_index():
    from lm_eval.tasks import TaskManager
    from lm_eval.tasks._index import Kind

    index = TaskManager().task_index
    found = catalogue.scan(catalogue._stock_root())
    assert found.names == set(index)
    for name, entry in index.items():
        if entry.kind is Kind.TAG:
            assert set(found.tags[name]) == entry.tags
        else:
            assert found.files[name] == str(entry.yaml_path)
