"""Questions that lie in calibration text are found, and others are not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qeval.load.making.overlap import RUN, held

QUESTION = "Which of the four harbours lies to the north of the river that the old ferry crosses twice a day?"
WORDS = st.lists(st.sampled_from([f"word{k}" for k in range(500)]), min_size=RUN, max_size=60)


def test_a_question_in_the_text_is_found_whatever_its_case_and_punctuation() -> None:
    text = f"Before it. {QUESTION.upper().replace(' ', ' - ')} After it."
    assert held(text, [QUESTION]) == 1


def test_a_question_that_is_half_there_is_not() -> None:
    words = QUESTION.split()
    assert held(" ".join(words[: len(words) // 2]), [QUESTION]) == 0


def test_a_word_in_ten_that_differs_is_another_question() -> None:
    words = [word if at % 5 else "else" for at, word in enumerate(QUESTION.split())]
    assert held(" ".join(words), [QUESTION]) == 0


def test_few_words_are_no_question() -> None:
    assert held("What is it? What is it?", ["What is it?", ""]) == 0


def test_what_every_question_is_wrapped_in_does_not_hide_it() -> None:
    asked = [f"Question: {text}\nAnswer:" for text in ("Which sea lies west of the old town?", "What is it?")]
    assert held("Which sea lies west of the old town? A cold one.", asked) == 1
    assert held("Which sea lies west of the new town? A cold one.", asked) == 0


@given(WORDS, WORDS, WORDS)
def test_what_lies_within_is_held(before: list[str], question: list[str], after: list[str]) -> None:
    assert held(" ".join((*before, *question, *after)), [" ".join(question)]) == 1


@given(WORDS)
def test_words_that_the_text_has_none_of_are_not_held(question: list[str]) -> None:
    assert held(QUESTION, [" ".join(question)]) == 0
