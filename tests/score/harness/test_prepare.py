"""Groups, metrics and kinds are filled in; what cannot be done is refused in a sentence with a remedy."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from qeval.base.errors import QevalError, UsageError
from qeval.base.records import Task
from qeval.score.engine.requests import Answer
from qeval.score.harness import door

pytestmark = pytest.mark.torch


def prepare(tokenizer, folder, *tasks, **options):
    return door.prepare(tasks, tokenizer, **{"max_length": 200, "tasks_dir": folder, **options})


@pytest.fixture
def own(fixtures, tmp_path):
    """A copy of the tests' tasks that may be spoilt."""
    folder = tmp_path / "tasks"
    shutil.copytree(fixtures, folder)
    return folder


def test_a_group_becomes_its_leaves_with_group_and_category(plain_tokenizer, fixtures):
    prepared = prepare(plain_tokenizer, fixtures, Task("fix_all", "", limit=3))
    rows = [(part.task.name, part.task.group, part.task.category) for part in prepared]
    assert rows == [
        ("fix_letters", "fix_all", "reading"),
        ("fix_cloze", "fix_all", "reading"),
        ("fix_mass", "fix_all", None),
        ("fix_mutual", "fix_all", None),
    ]
    assert [part.n for part in prepared] == [3, 3, 3, 3]
    assert [part.n_available for part in prepared] == [9, 5, 10, 10]


def test_a_task_of_ones_own_is_built_from_a_further_folder(plain_tokenizer, own):
    [part] = prepare(plain_tokenizer, None, Task("fix_letters", ""), own_tasks=own)
    assert part.n == 9
    with pytest.raises(UsageError, match="no task 'fix_letters'"):
        prepare(plain_tokenizer, None, Task("fix_letters", ""))


def test_a_tag_becomes_its_tasks_without_a_group(plain_tokenizer, fixtures):
    prepared = prepare(plain_tokenizer, fixtures, Task("fix_stories", ""))
    assert [(part.task.name, part.task.group) for part in prepared] == [
        ("fix_endings", None),
        ("fix_several", None),
    ]


@pytest.mark.parametrize(
    ("name", "metric", "kind", "chance"),
    [
        ("fix_letters", "acc", "accuracy", 1 / 3),
        ("fix_endings", "acc_norm", "accuracy", 5 / 12),
        ("fix_mutual", "acc_mutual_info", "accuracy", 5 / 12),
        ("fix_mass", "acc", "score", None),
        ("fix_pages", "word_perplexity", "perplexity", None),
        ("fix_cloze", "acc", "accuracy", None),
        ("fix_sums", "exact_match", "accuracy", None),
    ],
)
def test_metric_kind_and_chance_are_filled_in(name, metric, kind, chance, plain_tokenizer, fixtures):
    (part,) = prepare(plain_tokenizer, fixtures, Task(name, ""))
    assert (part.task.metric, part.task.kind) == (metric, kind)
    assert part.task.chance == (None if chance is None else pytest.approx(chance))


def test_perplexity_of_a_cloze_is_a_likelihood_an_item(plain_tokenizer, fixtures):
    (part,) = prepare(plain_tokenizer, fixtures, Task("fix_cloze", "perplexity"))
    outcome = door.collect(part, [Answer(-2.0, greedy=False)] * 5)
    assert part.task.kind == "perplexity"
    assert outcome.metrics["perplexity,none"] == pytest.approx(np.exp(2))
    assert outcome.samples.value.sum() / outcome.samples.weight.sum() == -2


def test_a_task_that_says_no_examples_keeps_to_it(plain_tokenizer, own):
    (own / "letters.yaml").write_text(
        (own / "letters.yaml").read_text().replace("num_fewshot: 2", "num_fewshot: 0")
    )
    (part,) = prepare(plain_tokenizer, own, Task("fix_letters", "", num_fewshot=2))
    assert part.task.num_fewshot == 0
    assert door.items(part)[0].prompt.count("Answer:") == 1


def test_an_item_shows_prompt_question_choices_and_gold(plain_tokenizer, fixtures):
    (part,) = prepare(plain_tokenizer, fixtures, Task("fix_letters", "", limit=2))
    first, second = door.items(part)
    assert first.prompt.startswith("Choose the letter.\n\n")
    assert first.prompt.endswith(first.question)
    assert first.prompt.count("Answer:") == 3
    assert first.question.count("Answer:") == 1
    assert first.choices == (" A", " B", " C")
    assert first.gold == str(part.content.docs()[0]["answer"])
    assert (first.key, second.key) == ("0", "1")


def test_items_of_a_task_with_blanks_show_both_sentences(plain_tokenizer, fixtures):
    (part,) = prepare(plain_tokenizer, fixtures, Task("fix_blanks", ""))
    item = door.items(part)[1]
    assert len(item.choices) == 2
    assert item.choices[0] != item.choices[1]
    assert item.gold == "1"


def test_a_score_that_is_no_number_names_task_and_item(plain_tokenizer, fixtures):
    (part,) = prepare(plain_tokenizer, fixtures, Task("fix_endings", ""))
    answers = [Answer(-1.0, greedy=True) for _ in part.requests]
    answers[4] = Answer(float("nan"), greedy=False)
    with pytest.raises(QevalError, match="Item 1 of task 'fix_endings' scored nan"):
        door.collect(part, answers)


def test_a_value_that_is_no_number_names_task_and_item(plain_tokenizer, fixtures):
    (part,) = prepare(plain_tokenizer, fixtures, Task("fix_mass", "", limit=3))
    view = part.view()
    values = iter([0.5, 1.0, float("nan")])
    view.config.process_results = lambda *_: {"acc": next(values)}
    with pytest.raises(QevalError, match="Item 2 of task 'fix_mass' is judged acc = nan"):
        door.collect(replace(part, view=lambda: view), [Answer(-1.0, greedy=True) for _ in part.requests])


@pytest.mark.parametrize(
    ("task", "error", "message", "hint"),
    [
        (Task("fix_lettres", ""), UsageError, "no task 'fix_lettres'", "fix_letters"),
        (Task("fix_letters", "acc_nrom"), UsageError, "no metric 'acc_nrom'", "acc"),
        (Task("fix_sums", "", filter="strikt"), UsageError, "no filter 'strikt'", "strict"),
        (Task("fix_sums", "bleu"), QevalError, "item by item", "exact_match"),
    ],
)
def test_wrong_names_are_refused(task, error, message, hint, plain_tokenizer, fixtures):
    with pytest.raises(error, match=message) as caught:
        prepare(plain_tokenizer, fixtures, task)
    assert hint in caught.value.hint


def test_a_task_asked_for_twice_is_refused(plain_tokenizer, fixtures):
    with pytest.raises(UsageError, match="'fix_letters' is asked for twice"):
        prepare(plain_tokenizer, fixtures, Task("fix_letters", ""), Task("fix_all", ""))


@pytest.mark.parametrize(
    ("file", "old", "new", "name", "message"),
    [
        ("letters.yaml", "metadata:", "metadata: [", "fix_letters", "letters.yaml, cannot be read"),
        ("endings.yaml", "helpers.tidy", "helpers.nothing", "fix_endings", "cannot be read"),
        ("letters.yaml", "test_split: test", "test_split: exam", "fix_letters", "lacks the split 'exam'"),
        (
            "letters.yaml",
            "fewshot_split: dev",
            "fewshot_split: more",
            "fix_letters",
            "lacks the split 'more'",
        ),
        ("letters.yaml", "letters_test.jsonl", "lost.jsonl", "fix_letters", "data set"),
        ("letters.yaml", "question.strip()", "query.strip()", "fix_letters", "query"),
        ("letters.yaml", "output_type: multiple_choice", "output_type: chat", "fix_letters", "chat"),
    ],
)
def test_a_broken_task_is_an_error_that_says_what(file, old, new, name, message, plain_tokenizer, own):
    text = (own / file).read_text()
    assert old in text
    (own / file).write_text(text.replace(old, new))
    with pytest.raises(QevalError) as caught:
        prepare(plain_tokenizer, own, Task(name, ""))
    assert message in str(caught.value)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("file", "old", "new", "name", "gives"),
    [
        (
            "letters.yaml",
            "doc_to_target: answer",
            "doc_to_target: anwser",
            "fix_letters",
            "gives 'anwser' for",
        ),
        ("endings.yaml", '"{{label}}"', "lable", "fix_endings", "doc_to_target gives 'lable' for"),
        ("blanks.yaml", "{{answer}}", "{{answer + 2}}", "fix_blanks", "doc_to_text gives "),
    ],
)
def test_a_task_without_any_right_answer_is_refused(file, old, new, name, gives, plain_tokenizer, own):
    text = (own / file).read_text()
    assert old in text
    (own / file).write_text(text.replace(old, new))
    with pytest.raises(QevalError) as caught:
        prepare(plain_tokenizer, own, Task(name, ""))
    assert f"No document of the task {name!r} has a right answer among its choices" in caught.value.message
    assert gives in caught.value.message
    assert "Correct doc_to_t" in caught.value.hint


def test_a_task_with_one_right_answer_is_built_though_the_items_asked_have_none(plain_tokenizer, own):
    lines = [json.loads(line) for line in (own / "letters_test.jsonl").read_text().splitlines()]
    for line in lines[:-1]:
        line["answer"] = -1
    (own / "letters_test.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for limit in (None, 2):
        (part,) = prepare(plain_tokenizer, own, Task("fix_letters", "", limit=limit))
        assert part.n == (limit or len(lines))


def test_a_split_only_for_examples_may_be_missing_where_there_are_none(plain_tokenizer, own):
    text = (own / "pages.yaml").read_text()
    (own / "pages.yaml").write_text(
        text.replace("test_split: test", "test_split: test\ntraining_split: train")
    )
    (part,) = prepare(plain_tokenizer, own, Task("fix_pages", ""))
    assert part.n == 5
    with pytest.raises(QevalError, match="lacks the split 'train'"):
        prepare(plain_tokenizer, own, Task("fix_pages", "", num_fewshot=1))


def test_a_model_without_a_chat_template_is_told_so(plain_tokenizer, fixtures):
    with pytest.raises(QevalError) as caught:
        prepare(plain_tokenizer, fixtures, Task("fix_letters", ""), chat_template=True)
    assert "--chat-template" in caught.value.hint


@pytest.fixture
def mirror(tmp_path, own):
    """A mirror of one Hub repository with a task that asks for it."""
    repository = tmp_path / "mirror" / "somebody" / "stories"
    repository.mkdir(parents=True)
    shutil.copy(own / "endings_test.jsonl", repository / "test.jsonl")
    (repository / "README.md").write_text(
        "---\nconfigs:\n- config_name: short\n  data_files:\n  - split: test\n    path: test.jsonl\n---\n"
    )
    text = (own / "endings.yaml").read_text()
    start, end = text.index("dataset_path"), text.index("process_docs")
    where = "dataset_path: stories\ndataset_name: short\ntest_split: test\n"
    (own / "endings.yaml").write_text(text[:start] + where + text[end:])
    return tmp_path / "mirror"


def test_a_mirror_is_used_before_the_hub(mirror, own, plain_tokenizer):
    (part,) = prepare(plain_tokenizer, own, Task("fix_endings", ""), datasets_dir=mirror)
    assert part.n == 10
    assert part.dataset.startswith("stories, short, split test, from a mirror, documents ")


def test_a_change_in_a_mirror_is_seen(mirror, own, plain_tokenizer, tmp_path):
    """`datasets` itself looks at a folder's README only, and would go on with the rows it has."""
    options = {"datasets_dir": mirror, "cache_dir": tmp_path / "cache"}
    (before,) = prepare(plain_tokenizer, own, Task("fix_endings", ""), **options)
    file = mirror / "somebody" / "stories" / "test.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:7]).replace("dusk", "dawn"))
    (after,) = prepare(plain_tokenizer, own, Task("fix_endings", ""), **options)
    assert (before.n, after.n) == (10, 7)
    assert "dawn" in door.items(after)[0].prompt
    assert before.dataset != after.dataset


@pytest.mark.usefixtures("mirror")
def test_no_mirror_and_no_network_is_an_error_with_a_remedy(own, plain_tokenizer, monkeypatch):
    import datasets

    def unreachable(**_):
        raise ConnectionError("Couldn't reach 'stories' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(QevalError, match="HF_HUB_OFFLINE is set, and the data set 'stories'") as caught:
        prepare(plain_tokenizer, own, Task("fix_endings", ""))
    assert "unset HF_HUB_OFFLINE" in caught.value.hint
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)
    with pytest.raises(QevalError, match="There is no network, and the data set 'stories'") as caught:
        prepare(plain_tokenizer, own, Task("fix_endings", ""))
    assert "--datasets-dir" in caught.value.hint


def test_a_configuration_that_the_mirror_lacks(mirror, own, plain_tokenizer):
    text = (own / "endings.yaml").read_text()
    (own / "endings.yaml").write_text(text.replace("dataset_name: short", "dataset_name: long"))
    with pytest.raises(QevalError, match="no such configuration"):
        prepare(plain_tokenizer, own, Task("fix_endings", ""), datasets_dir=mirror)


def test_progress_names_each_leaf(plain_tokenizer, fixtures):
    told = []
    tasks = [Task("fix_letters", ""), Task("fix_pages", "")]
    prepare(plain_tokenizer, fixtures, *tasks, progress=lambda *words: told.append(words))
    assert told == [("fix_letters", 0, 2), ("fix_pages", 1, 2), ("", 2, 2)]


def test_nothing_of_lm_evals_stays_changed(plain_tokenizer, fixtures):
    import random

    import datasets
    from lm_eval import utils
    from lm_eval.api import task

    before = (utils.apply_template, task.tqdm, datasets.load_dataset, datasets.load.DatasetCard.load)
    state = random.getstate()
    prepare(plain_tokenizer, fixtures, Task("fix_letters", ""))
    assert before == (utils.apply_template, task.tqdm, datasets.load_dataset, datasets.load.DatasetCard.load)
    assert random.getstate() == state
