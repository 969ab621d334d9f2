# ruff: noqa: INP001 -- a script beside the data it writes, not a module of the package
"""Writes arithmetic.jsonl: `python tasks/demo/make_arithmetic.py` gives the same file every time.

Each item carries its `expression`, so that a test can compute the answer again. Wrong answers are a
little off (by one, by ten and the like) and have as many digits as the right one, which is about as
often the smallest of the four as the second, the third or the largest.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("arithmetic.jsonl")
SEED = 20260101
SLIPS = (1, 2, 3, 4, 5, 9, 10, 11, 20)

# (topic, how many, question, expression, ranges of the numbers a, b and c)
RECIPES: tuple[tuple[str, int, str, str, tuple[range, ...]], ...] = (
    ("digits", 14, "What is {a} + {b}?", "{a} + {b}", (range(2, 10), range(2, 10))),
    ("digits", 8, "What is {a} - {b}?", "{a} - {b}", (range(9, 19), range(2, 9))),
    ("tables", 18, "What is {a} times {b}?", "{a} * {b}", (range(3, 10), range(2, 11))),
    ("tables", 10, "What is half of {a}?", "{a} // 2", (range(8, 101, 2),)),
    ("carrying", 8, "What is {a} + {b}?", "{a} + {b}", (range(12, 90), range(11, 80))),
    ("carrying", 6, "What is {a} - {b}?", "{a} - {b}", (range(60, 100), range(12, 50))),
    ("series", 9, "Which number comes next: {a}, {a2}, {a3}?", "{a} + 3 * {b}", (range(1, 20), range(1, 11))),
)
STORIES: tuple[tuple[str, str, tuple[range, ...]], ...] = (
    ("Anna has {a} apples and buys {b} more. How many apples does she have now?", "{a} + {b}",
     (range(2, 13), range(2, 10))),
    ("A shelf holds {a} books. {b} of them are taken away. How many books are left?", "{a} - {b}",
     (range(10, 31), range(2, 10))),
    ("There are {a} pens in each of {b} boxes. How many pens are there?", "{a} * {b}",
     (range(3, 11), range(2, 7))),
    ("One ticket costs {a} dollars. How many dollars do {b} tickets cost?", "{a} * {b}",
     (range(4, 12), range(2, 6))),
    ("A bus has {a} passengers. {b} get on and {c} get off. How many passengers are on the bus?",
     "{a} + {b} - {c}", (range(15, 40), range(3, 10), range(2, 10))),
    ("A farmer has {a} hens and {b} cows. How many legs do the animals have?", "{a} * 2 + {b} * 4",
     (range(3, 10), range(2, 8))),
    ("Mia is {a} years old. How old will she be in {b} years?", "{a} + {b}",
     (range(5, 31), range(2, 12))),
    ("Tim pays for a toy of {a} dollars with a 20-dollar note. How many dollars does he get back?",
     "20 - {a}", (range(3, 18),)),
    ("A garden is {a} metres long and {b} metres wide. How many metres of fence go round it?",
     "2 * ({a} + {b})", (range(8, 20), range(3, 8))),
)  # fmt: skip
STORY_COUNT = 3


def wrong_answers(answer: int, below: int, rng: random.Random) -> list[int]:
    """Three numbers of as many digits as `answer`, `below` of them smaller where there is room."""
    near = [answer + sign * slip for slip in SLIPS for sign in (-1, 1)]
    near = [n for n in near if n > 0 and len(str(n)) == len(str(answer))]
    less, more = [n for n in near if n < answer], [n for n in near if n > answer]
    below = max(min(below, len(less)), 3 - len(more))
    return rng.sample(less[:6], below) + rng.sample(more[:6], 3 - below)


def item(topic: str, question: str, expression: str, ranges: tuple[range, ...], rng: random.Random) -> dict:
    """One item with its wrong answers; the gold position is set by `main`."""
    numbers = dict(zip("abc", (rng.choice(r) for r in ranges), strict=False))
    step = numbers.get("b", 0)
    shown = {**numbers, "a2": numbers["a"] + step, "a3": numbers["a"] + 2 * step}
    filled = expression.format(**numbers)
    answer = eval(filled)  # noqa: S307 -- our own expressions, from the tables above
    wrong = wrong_answers(answer, rng.randrange(4), rng)
    return {
        "topic": topic,
        "question": question.format(**shown),
        "expression": filled,
        "wrong": wrong,
        "gold": answer,
    }


def draw(rng: random.Random) -> list[dict[str, Any]]:
    """All items, in order of topic, no question twice."""
    recipes = [*RECIPES, *(("story", STORY_COUNT, *story) for story in STORIES)]
    items: dict[str, dict[str, Any]] = {}
    for topic, count, question, expression, ranges in recipes:
        wanted = len(items) + count
        while len(items) < wanted:
            new = item(topic, question, expression, ranges, rng)
            items.setdefault(new["question"], new)
    return list(items.values())


def main() -> None:
    """Draw the items, spread the right answers evenly over the four places, write the file."""
    rng = random.Random(SEED)  # noqa: S311 -- not for secrets
    items = draw(rng)
    places = [i % 4 for i in range(len(items))]
    rng.shuffle(places)
    with FILE.open("w", encoding="utf-8") as out:
        for number, (entry, place) in enumerate(zip(items, places, strict=True), start=1):
            choices, gold = entry.pop("wrong"), entry.pop("gold")
            rng.shuffle(choices)
            choices.insert(place, gold)
            row = {"id": f"arithmetic-{number:03d}", **entry, "choices": [str(c) for c in choices]}
            out.write(json.dumps({**row, "answer": place}) + "\n")


if __name__ == "__main__":
    main()
