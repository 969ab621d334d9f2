"""The suites' files and the project's own benchmark: sound items, nothing given away, loadable offline."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from qeval.ask import suites
from qeval.score.harness.catalogue import known_tasks, scan

TASKS = Path(__file__).parents[1] / "tasks"
DEMO = TASKS / "demo"
CHOICE_FILES = ("facts", "arithmetic", "words", "continuations")
COUNTS = {"facts": 120, "arithmetic": 100, "words": 100, "continuations": 100, "prose": 24}
SUITES = suites.names()


def read(name):
    return [json.loads(line) for line in (DEMO / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def question(item):
    return item.get("question") or item["context"]


def plain(text):
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())


def everything(name):
    """The items of a task and the examples that go before them."""
    shots = DEMO / f"{name}_fewshot.jsonl"
    return read(name) + (read(f"{name}_fewshot") if shots.exists() else [])


@pytest.mark.parametrize("name", COUNTS)
def test_the_readme_counts_the_items(name):
    assert len(read(name)) == COUNTS[name]
    row = f"| `qeval_{name}` | {COUNTS[name]} |"
    assert row in (TASKS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COUNTS)
def test_ids_are_unique_and_name_their_file(name):
    ids = [item["id"] for item in everything(name)]
    assert len(set(ids)) == len(ids)
    assert all(i.startswith(f"{name}-") for i in ids)


@pytest.mark.parametrize("name", CHOICE_FILES)
def test_no_question_is_asked_twice_nor_shown_as_an_example(name):
    asked = Counter(plain(question(item)) for item in everything(name))
    assert [q for q, n in asked.items() if n > 1] == []


@pytest.mark.parametrize("name", CHOICE_FILES)
def test_each_item_has_four_distinct_choices_and_one_answer(name):
    for item in everything(name):
        assert len({c.casefold().strip() for c in item["choices"]}) == len(item["choices"]) == 4, item["id"]
        assert item["answer"] in range(4), item["id"]
        assert all(c and c == c.strip() for c in item["choices"]), item["id"]


@pytest.mark.parametrize("name", CHOICE_FILES)
def test_right_answers_stand_equally_often_in_each_place(name):
    places = Counter(item["answer"] for item in read(name))
    assert max(places.values()) - min(places[i] for i in range(4)) <= 1


@pytest.mark.parametrize("name", CHOICE_FILES)
def test_the_place_of_the_answer_has_no_period(name):
    places = [item["answer"] for item in read(name)]
    for period in (1, 2, 3, 4):
        same = sum(a == b for a, b in zip(places, places[period:], strict=False)) / len(places)
        assert same < 0.45, period


@pytest.mark.parametrize("name", CHOICE_FILES)
@pytest.mark.parametrize("pick", [max, min], ids=["longest", "shortest"])
def test_length_gives_nothing_away(name, pick):
    hits = 0.0
    for item in read(name):
        lengths = [len(c) for c in item["choices"]]
        best = [i for i, n in enumerate(lengths) if n == pick(lengths)]
        hits += (item["answer"] in best) / len(best)
    assert hits / len(read(name)) <= 0.36


def test_the_answer_to_a_sum_is_right_and_the_others_are_wrong():
    for item in everything("arithmetic"):
        answer = eval(item["expression"], {"__builtins__": {}})
        assert [int(c) == answer for c in item["choices"]] == [i == item["answer"] for i in range(4)], item[
            "id"
        ]
        assert {len(c) for c in item["choices"]} == {len(str(answer))}, item["id"]


def test_the_size_of_a_number_gives_nothing_away():
    ranks = Counter(
        sorted(map(int, i["choices"])).index(int(i["choices"][i["answer"]])) for i in read("arithmetic")
    )
    assert max(ranks.values()) <= 0.36 * len(read("arithmetic"))


def test_the_sums_are_those_that_the_script_writes(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_arithmetic", DEMO / "make_arithmetic.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "FILE", tmp_path / "arithmetic.jsonl")
    script.main()
    assert script.FILE.read_bytes() == (DEMO / "arithmetic.jsonl").read_bytes()


def test_endings_are_sentences():
    for item in read("continuations"):
        for ending in item["choices"]:
            assert ending[0].isupper(), item["id"]
            assert ending.endswith("."), item["id"]


def test_documents_are_distinct_and_of_the_stated_length():
    documents = read("prose")
    for item in documents:
        assert item["words"] == len(item["text"].split()), item["id"]
        assert 140 <= item["words"] <= 170, item["id"]  # as tasks/README.md says
        assert item["text"] == " ".join(item["text"].split()), item["id"]
    openings = {tuple(plain(item["text"]).split()[:4]) for item in documents}
    assert len(openings) == len({item["title"] for item in documents}) == len(documents)
    assert len({item["register"] for item in documents}) >= 12


def test_documents_share_no_long_phrase():
    seen = {}
    for item in read("prose"):
        words = plain(item["text"]).split()
        for start in range(len(words) - 7):
            phrase = tuple(words[start : start + 8])
            assert seen.setdefault(phrase, item["id"]) == item["id"], phrase


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_says_what_it_is_for_and_averages_its_own_rows(name):
    text = (TASKS / f"{name}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    assert text.startswith("# ")
    assert table["name"] == name
    accuracies = {t["name"] for t in table["task"] if t.get("kind") != "perplexity"}
    assert {row.removesuffix("_macro") for row in table["average"]} == accuracies


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_read(name):
    suite = suites.load(name)
    assert all(task.metric for task in suite.tasks)
    assert suite.description


def test_only_the_smoke_suite_is_limited():
    limited = {
        name: [t.limit for t in suites.load(name).tasks] for name in ("demo", "leaderboard-v1", "quick")
    }
    assert all(limit is not None for limit in limited["quick"])
    assert {*limited["demo"], *limited["leaderboard-v1"]} == {None}
    assert suites.load("quick").description.startswith("Smoke run")


LOAD = """
import json, logging, sys
logging.disable(logging.WARNING)
from lm_eval.tasks import TaskManager
manager = TaskManager(include_path=sys.argv[1], include_defaults=False)
tasks = manager.load(sorted(manager.all_tasks))["tasks"]
print(json.dumps({n: [len(t.eval_docs), t.doc_to_text(t.eval_docs[0]), sorted(t.aggregation())]
                  for n, t in tasks.items()}))
"""


@pytest.mark.torch
def test_lm_eval_loads_our_tasks_offline_from_another_folder(tmp_path):
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(TASKS)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert {n: row[0] for n, row in loaded.items()} == {f"qeval_{n}": count for n, count in COUNTS.items()}
    assert loaded["qeval_facts"][1] == f"Question: {read('facts')[0]['question']}\nAnswer:"
    wanted = {task.name: task.metric for task in suites.load("demo").tasks}
    assert all(metric in loaded[name][2] for name, metric in wanted.items())
    own = [task for name in SUITES for task in suites.load(name).tasks if task.name in loaded]
    assert all(task.metric in loaded[task.name][2] for task in own)


METRICS = """
import functools, json, logging, os, sys
from lm_eval.tasks import TaskManager
from qeval.score.harness.catalogue import catalogue
logging.disable(logging.WARNING)
stock = catalogue()

@functools.cache
def index(folder):
    return TaskManager(include_path=folder, include_defaults=False).task_index

def common(members):
    return set.intersection(*(found for found in map(metrics, members) if found is not None))

def metrics(name):
    if isinstance(name, dict):
        name = name["task"]
    if isinstance(name, list) or name in stock.tags:
        return common(name if isinstance(name, list) else stock.tags[name])
    config = index(os.path.dirname(stock.files[name]))[name].cfg
    if "class" in config:  # Python, which tells its metrics once it has loaded its data
        return None
    found = config.get("metric_list") or config.get("aggregate_metric_list")
    return {one["metric"] for one in found} if found else common(config["task"])

print(json.dumps({name: sorted(found) for name in sys.argv[1:] if (found := metrics(name)) is not None}))
"""


@pytest.mark.torch
def test_lm_eval_knows_every_task_and_metric_of_the_suites():
    """All tasks but our own, which the test above loads."""
    asked = [(task.name, task.metric) for name in SUITES for task in suites.load(name).tasks]
    stock = [(name, metric) for name, metric in asked if name not in scan(TASKS).names]
    assert {name for name, _ in stock} <= known_tasks()
    names = sorted({name for name, _ in stock})
    done = subprocess.run(
        [sys.executable, "-c", METRICS, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    known = json.loads(done.stdout.splitlines()[-1])
    assert [(name, metric) for name, metric in stock if metric not in known.get(name, [metric])] == []
