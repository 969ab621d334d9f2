"""Suites: the files that come with qeval are read, and mistakes in a user's own are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from qeval.ask import suites
from qeval.base.errors import UsageError


def test_the_suites_that_come_with_qeval() -> None:
    assert {"demo", "leaderboard-v1", "quick"} <= set(suites.names())
    for name in suites.names():
        suite = suites.load(name)
        assert suite.name == name
        assert suite.description
        assert suite.average


def test_the_leaderboard_is_the_leaderboard() -> None:
    tasks = {task.name: (task.num_fewshot, task.metric) for task in suites.load("leaderboard-v1").tasks}
    assert tasks["arc_challenge"] == (25, "acc_norm")
    assert tasks["hellaswag"] == (10, "acc_norm")
    assert tasks["mmlu"] == (5, "acc")
    assert tasks["truthfulqa_mc2"] == (0, "acc")
    assert tasks["wikitext"][1] == "word_perplexity"
    assert "mmlu_macro" in suites.load("leaderboard-v1").average


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no \\[\\[task\\]\\]"),
        ("[[task]]\nmetric='acc'", "no name"),
        ("[[task]]\nname='a'\nfewshot=3", "task 1: there is no key 'fewshot'"),
        ("average=[]\naverages=[]", "there is no key 'averages'"),
        ("[[task]]\nname='a'\nlimit='3'", "limit = '3' is not allowed"),
        ("[[task]]\nname='a'\nlimit=true", "limit = True is not allowed"),
        ("[[task]]\nname='a'\nlimit=0", "limit = 0 is not allowed"),
        ("[[task]]\nname='a'\nchance=25", "such as 0.25"),
        ("[[task]]\nname='a'\ngroup='mmlu'", "there is no key 'group'"),
        ("[[task]]\nname=''", "a name in quotes"),
        ("average='a'\n[[task]]\nname='a'", "a list, each entry text in quotes"),
        ("average=[1]\n[[task]]\nname='a'", "average 1 = 1 is not allowed"),
        ("average=['b']\n[[task]]\nname='a'", "average names no task 'b'"),
        ("average=['a','a']\n[[task]]\nname='a'", "names the task 'a' twice"),
        ("average=['a']\n[[task]]\nname='a'\nkind='perplexity'", "average names 'a', a perplexity"),
        ("average=['a']\n[[task]]\nname='a'\nmetric='byte_perplexity'", "average names 'a', a perplexity"),
        ("average=['wikitext']\n[[task]]\nname='wikitext'", "average names 'wikitext', a perplexity"),
        ("task='a'", "a list of tables"),
        ("[task]\nname='a'", "a list of tables"),
        ("task=[]", "a list of tables"),
        ("[[task]]\nname='a'\nkind='perplexities'", "Did you mean 'perplexity'"),
        ("[[task]]\nname='a'\n[[task]]\nname='a'", "twice"),
        ("[[task]\n", "not valid TOML"),
    ],
)
def test_a_mistake_in_a_suite_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        suites.load(str(file))
    assert str(file) in caught.value.message
    assert caught.value.hint


def test_an_average_may_name_a_groups_mean(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("average=['mmlu_macro', 'arc_easy']\n[[task]]\nname='mmlu'\n[[task]]\nname='arc_easy'")
    assert suites.load(str(file)).average == ("mmlu_macro", "arc_easy")


def test_an_unknown_suite_gets_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        suites.load("leaderbord-v1")
    assert "leaderboard-v1" in caught.value.hint


def test_tasks_on_the_command_line() -> None:
    suite = suites.from_tasks(" arc_easy, piqa:acc ")
    assert [(task.name, task.metric) for task in suite.tasks] == [("arc_easy", ""), ("piqa", "acc")]
    for wrong in ("", " , ", "a,a"):
        with pytest.raises(UsageError):
            suites.from_tasks(wrong)


def test_limit_and_examples_replace_those_of_every_task() -> None:
    suite = suites.adjust(suites.load("leaderboard-v1"), limit=7, num_fewshot=2)
    assert {(task.limit, task.num_fewshot) for task in suite.tasks} == {(7, 2)}
    assert suites.adjust(suites.load("leaderboard-v1")) == suites.load("leaderboard-v1")


def test_the_table_of_sizes_is_no_suite() -> None:
    assert "sizes" not in suites.names()
    with pytest.raises(UsageError, match="no suite 'sizes'"):
        suites.load("sizes")


def test_a_suite_says_how_many_documents_lm_eval_verifies(tmp_path: Path) -> None:
    assert suites.documents_verified("leaderboard-v1") == 8
    assert suites.documents_verified("quick") == 0
    own = tmp_path / "own.toml"
    own.write_text('average = []\nverify = 3\n[[task]]\nname = "arc_easy"\n')
    assert suites.documents_verified(str(own)) == 3
