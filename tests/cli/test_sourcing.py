"""Missing data sets are found once, before a run begins, with the folder or command that mends it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qeval.base.errors import QevalError
from qeval.base.records import Task
from qeval.load import mirror
from qeval.score.harness.absent import Reads, missing
from qeval.score.harness.catalogue import scan
from qeval.score.harness.needed import Needed, needed

SETS = {"org/one": "org_one", "org/two": "org_two", "plain": "plain_set"}
"""Data sets by path, and the task that reads each."""


@pytest.fixture
def own(tmp_path: Path, monkeypatch) -> Path:
    """A folder of tasks that read data sets of the Hub; whatever was cached before is out of sight."""
    folder = tmp_path / "own"
    folder.mkdir()
    for path, task in SETS.items():
        (folder / f"{task}.yaml").write_text(
            f"task: {task}\ndataset_path: {path}\ndataset_name: first\noutput_type: multiple_choice\n"
            "test_split: test\ndoc_to_text: q\ndoc_to_choice: [a, b]\ndoc_to_target: 0\n"
        )
    (folder / "all.yaml").write_text("group: everything\ntask:\n  - org_one\n  - task: org_two\n")
    monkeypatch.delenv("QEVAL_DATASETS_DIR", raising=False)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cached"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return folder


def put(folder: Path, *paths: str, configuration: str = "first") -> Path:
    """Copies of data sets, each with a card that lists one configuration."""
    for path in paths:
        place = folder / path
        place.mkdir(parents=True)
        (place / "README.md").write_text(f"---\nconfigs:\n- config_name: {configuration}\n---\nwords\n")
        (place / "test.jsonl").write_text("{}\n")
    return folder


def refused(own: Path, *tasks: str, mirror: Path | None = None, **more: str) -> QevalError | None:
    return missing(Reads([Task(name, "acc") for name in tasks], own, own / "none", mirror, **more))


RUN = ("run", "--model", "demo", "--schemes", "fp16,rtn", "--tasks-dir", "own")


# --- once, before weights are loaded ------------------------------------------------------------


def test_a_missing_data_set_is_found_once_before_a_run_begins(qeval, own: Path, runs_dir: Path) -> None:
    qeval("run", "--model", "toy", "--schemes", "fp16,bnb4", "--tasks", "qeval_facts")
    said = qeval(*RUN, "--tasks", "org_one,org_two,qeval_facts", code=1).stderr
    assert said.count("org/one") == 1
    assert said.startswith(
        "Error: HF_HUB_OFFLINE is set, and there is no copy here of org/one (org_one), org/two (org_two).\n"
    )
    assert "or add --datasets-dir mirror after filling that folder, where there is a network, with:" in said
    assert f" with: qeval fetch --tasks org_one,org_two --to mirror --tasks-dir {own}\n" in said
    assert len(list(runs_dir.glob("*/run.json"))) == 1
    assert "did not get far enough" in qeval("gate", "--max-drop", "1", code=5).stderr


def test_members_of_groups_are_looked_for_and_named_by_the_group(own: Path) -> None:
    found = refused(own, "everything")
    assert found is not None
    assert "org/one (everything), org/two (everything)" in found.message
    assert "--tasks everything" in found.hint


def test_what_is_here_or_cached_is_not_refused(own: Path, tmp_path: Path) -> None:
    place = put(tmp_path / "mirror", "org/one", "some/plain")
    assert refused(own, "org_one", "plain_set", mirror=place) is None
    assert refused(own, "org_two", mirror=place) is not None
    (tmp_path / "hub" / "datasets--org--two").mkdir(parents=True)
    assert refused(own, "org_two") is None
    assert refused(own, "org_one") is not None
    (tmp_path / "cached" / "org___one").mkdir(parents=True)
    assert refused(own, "org_one") is None


def test_a_script_of_a_data_sets_own_may_know_more_configurations_than_its_card(tmp_path: Path) -> None:
    place = put(tmp_path / "mirror", "org/one", configuration="second") / "org" / "one"
    assert mirror.left_out(place, "first") == ("second",)
    (place / "one.py").touch()
    assert mirror.left_out(place, "first") == ()


def test_a_configuration_that_a_mirror_lacks_is_found_too(own: Path, tmp_path: Path) -> None:
    place = put(tmp_path / "mirror", "org/one", configuration="second")
    found = refused(own, "org_one", mirror=place)
    assert found is not None
    assert f"The mirror {place} has org/one without first (org_one). It has second of org/one." in str(found)
    assert f"qeval fetch --tasks org_one --to {place}" in found.hint


def test_fidelity_reads_a_data_set_and_may_be_left_out(qeval, own: Path) -> None:
    assert own.is_dir()
    words = ("run", "--model", "demo", "--schemes", "fp16,rtn", "--tasks", "qeval_facts")
    said = qeval(*words, "--fidelity", "wikitext-2048", code=1).stderr
    assert "there is no copy here of Salesforce/wikitext (fidelity)." in said
    assert "Leave wikitext-2048 out with --fidelity none" in said
    assert refused(own, "qeval_facts") is None


def test_a_plan_that_counts_tokens_refuses_them_too(qeval, own: Path) -> None:
    assert own.is_dir()
    words = ("plan", "--model", "demo", "--schemes", "fp16", "--gpu", "h100", "--tasks-dir", "own")
    said = qeval(*words, "--tasks", "org_one,org_two", code=1).stderr
    assert "there is no copy here of org/one (org_one), org/two (org_two)." in said


def test_a_hub_that_answers_is_asked(own: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(mirror, "offline", lambda: None)
    monkeypatch.setattr("qeval.load.source.hub_answers", lambda *_: False)
    found = refused(own, "org_one")
    assert found is not None
    assert found.message.startswith("The Hub cannot be reached, and there is no copy here of org/one")
    monkeypatch.setattr("qeval.load.source.hub_answers", lambda *_: True)
    assert refused(own, "org_one") is None
    heard: list[str] = []
    place = put(tmp_path / "mirror", "org/two")
    assert missing(Reads([Task("org_one", "acc")], own, own / "none", place), heard.append) is None
    assert missing(Reads([Task("org_two", "acc")], own, own / "none", place), heard.append) is None
    [told] = heard
    assert "holds none of the data sets that are read, so the Hub is asked. It holds org/two." in told


@pytest.mark.torch
@pytest.mark.slow
def test_a_run_that_has_all_its_results_needs_no_data(qeval, own: Path, tmp_path: Path, monkeypatch) -> None:
    (own / "org_one.yaml").write_text(
        "task: org_one\ndataset_path: org/one\ndataset_name: first\noutput_type: multiple_choice\n"
        "test_split: test\ndoc_to_text: '{{q}}'\ndoc_to_choice: [a, b]\ndoc_to_target: 0\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    place = put(tmp_path / "data", "org/one")
    items = "".join(json.dumps({"q": f"say {n}"}) + "\n" for n in range(3))
    (place / "org/one/test.jsonl").write_text(items)
    (place / "org/one/README.md").write_text(
        "---\nconfigs:\n- config_name: first\n  data_files:\n  - split: test\n    path: test.jsonl\n---\n"
    )
    words = (*RUN, "--tasks", "org_one", "--fidelity", "none")
    first = qeval(*words, "--datasets-dir", place)
    monkeypatch.setattr(mirror, "absent", lambda *_: ["org/one"])  # as where a cache was emptied
    assert qeval(*words, "--datasets-dir", place).stdout == first.stdout
    assert "org/one (org_one)" in qeval(*words, "--datasets-dir", place, "--again", code=1).stderr


# --- the folder that is meant --------------------------------------------------------------------


@pytest.mark.parametrize("given", [".", "mirror/org", "mirror/org/one", "mirror/models"])
def test_a_folder_too_low_or_too_high_names_the_one_that_works(own: Path, tmp_path: Path, given: str) -> None:
    (put(tmp_path / "mirror", "org/one", "org/two") / "models").mkdir()
    found = refused(own, "org_one", "org_two", mirror=tmp_path / given)
    assert found is not None
    told = found.hint.removeprefix("Did you mean --datasets-dir ").removesuffix("? It holds org/one.")
    assert Path(told) == tmp_path / "mirror"
    assert refused(own, "org_one", "org_two", mirror=Path(told)) is None


def test_what_lies_in_a_mirror_is_told(own: Path, tmp_path: Path) -> None:
    def told(folder: Path) -> str:
        found = refused(own, "org_one", mirror=folder)
        assert found is not None
        return str(found)

    (tmp_path / "bare").mkdir()
    place = put(tmp_path / "deep" / "mirror", "org/two", "org/three")
    assert f"{tmp_path / 'bare'} is empty." in told(tmp_path / "bare")
    assert f"--to {tmp_path / 'bare'}" in told(tmp_path / "bare")
    assert f"{place} holds org/three, org/two." in told(place)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").touch()
    assert f"{tmp_path / 'files'} holds no folder." in told(tmp_path / "files")
    assert "--to mirror" in told(tmp_path / "files")
    assert f"{place / 'org'} has the folders three, two, and no data set as <org>/<name>." in told(
        place / "org"
    )


def test_a_misspelt_mirror_names_the_one_beside_it(qeval, own: Path, tmp_path: Path) -> None:
    assert own.is_dir()
    put(tmp_path / "mirror", "org/one")
    said = qeval(*RUN, "--tasks", "org_one", "--datasets-dir", "miror", code=2).stderr
    assert "Directory 'miror' does not exist. Did you mean mirror?" in said
    said = qeval(*RUN, "--tasks", "org_one", "--datasets-dir", "own/all.yaml", code=2).stderr
    assert "Directory 'own/all.yaml' is a file." in said


def test_the_doctor_tells_a_mirror_from_what_lies_in_one(qeval, tmp_path: Path) -> None:
    place = put(tmp_path / "mirror", "org/one")

    def told(folder: Path) -> tuple[str, str, str]:
        found = json.loads(qeval("doctor", "--datasets-dir", folder, "--json", code=None).stdout)["findings"]
        [one] = [one for one in found if one["name"] == "data set mirror"]
        return one["state"], one["text"], one["remedy"]

    assert told(place) == ("ready", f"{place} holds org/one", "")
    state, words, remedy = told(place / "org")
    assert (state, words) == (
        "warning",
        f"{place / 'org'} has the folder one, and no data set as <org>/<name>",
    )
    assert remedy.startswith("Name the folder above it")
    assert told(tmp_path / "nothing")[:2] == ("warning", f"there is no folder {tmp_path / 'nothing'}")


@pytest.mark.torch
@pytest.mark.slow
def test_texts_of_fidelity_and_calibration_name_the_folder_that_is_meant(tmp_path: Path, monkeypatch) -> None:
    from qeval.load.making.calibration import Calibration, windows
    from qeval.score.fidelity.streams import _lines

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cached"))
    put(tmp_path / "mirror", "Salesforce/wikitext", "allenai/c4")
    for read in (_lines, lambda place: windows(Calibration("c4", 1, 8, 0), None, place)):
        with pytest.raises(QevalError) as caught:
            read(tmp_path)
        assert caught.value.hint.startswith(f"Did you mean --datasets-dir {tmp_path / 'mirror'}? It holds ")


# --- what tasks read, by their YAML ---------------------------------------------------------------


def test_what_makes_its_own_data_or_reads_files_needs_no_data_set(tmp_path: Path) -> None:
    texts = {
        "files": "dataset_path: json",
        "code": "dataset_path: org/one\ncustom_dataset: !function a.b",
        "here": "dataset_path: ./here",
        "part": "dataset_path: org/one\ndataset_name: x\ndataset_kwargs: {data_files: a.json}",
        "base": "include: base_yaml\ndataset_name: y",
        "tagged": "tag: kin\ndataset_path: org/three",
    }
    (tmp_path / "base_yaml").write_text("dataset_path: org/two\n")
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\n{text}\n")
    (tmp_path / "group.yaml").write_text(
        "group: several\ntask:\n  - group: inner\n    task: [part, base]\n"
        "  - {task: base, dataset_name: z}\n  - {task: new, dataset_path: org/four}\n  - several\n"
    )
    known = scan(tmp_path)

    def read(name: str) -> list[tuple[str, str | None]]:
        return [(one.path, one.name) for one in needed([Task(name, "")], known)]

    assert [read(name) for name in ("code", "here", "unknown")] == [[], [], []]
    assert mirror.absent([path for path, _ in read("files")], tmp_path) == []
    assert read("part") == [("org/one", None)]
    assert read("base") == [("org/two", "y")]
    assert read("kin") == [("org/three", None)]
    assert read("several") == [("org/one", None), ("org/two", "y"), ("org/two", "z"), ("org/four", None)]
    assert needed([Task("base", "")], known) == (Needed("org/two", "y", "base"),)


@pytest.mark.torch  # `datasets` imports it
def test_what_datasets_reads_by_its_own_code_is_no_data_set(tmp_path: Path) -> None:
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    assert set(_PACKAGED_DATASETS_MODULES) >= mirror._BY_CODE
    assert mirror.absent([*_PACKAGED_DATASETS_MODULES, "piqa", "org/json"], tmp_path) == ["piqa", "org/json"]
