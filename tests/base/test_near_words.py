"""What may be meant by a word that is not known."""

from __future__ import annotations

import pytest

from qeval.base.errors import did_you_mean


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("qeval_fact", ("qeval_facts", "agieval_math", "ifeval_ca"), "Did you mean 'qeval_facts'?"),
        ("mmul", ("mmlu", "mmmlu", "arc"), "Did you mean 'mmlu' or 'mmmlu'?"),
        ("fp16", ("demo[scheme=fp16]", "demo[scheme=bnb4]"), "Did you mean 'demo[scheme=fp16]'?"),
        ("as", ("base", "case"), "Did you mean 'case' or 'base'?"),
        ("zzz", (), ""),
    ],
)
def test_only_words_about_as_near_as_the_nearest_are_named(
    word: str, known: tuple[str, ...], said: str
) -> None:
    assert did_you_mean(word, known, most=3) == said
