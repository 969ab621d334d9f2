"""Own questions and a model that answers them by chance: what files of other tools are made from in tests.

The same question is answered alike by every release and tool: a hash of the model's name and the texts
decides.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

LETTERS = [
    {
        "question": f"Which letter comes {'after' if at % 2 else 'before'} {chr(ord('C') + at)}?",
        "choices": [chr(ord("C") + at + step) for step in (-1, 1)],
        "answer": at % 2,
    }
    for at in range(12)
]
SUMS = [{"question": f"What is {at} and {at + 3}?", "answer": str(2 * at + 3)} for at in range(6)]
PAGES = [
    {"page": f"On day {at} the {animal} saw a boat on the river, and sat down."}
    for at, animal in enumerate(("fox", "hen", "owl", "cat"))
]
MODELS = {"fp16": "pretrained=org/tiny,dtype=float16", "int4": "pretrained=org/tiny,dtype=int4"}


def write_data(folder: Path) -> None:
    """The questions as files of JSON lines, which the tasks' YAML names."""
    for name, rows in (("letters", LETTERS), ("sums", SUMS), ("pages", PAGES)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def chance(*texts: str) -> float:
    """A number from 0 to 1 that the texts alone decide."""
    return int(hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8], 16) / 16**8


def log_likelihood(model: str, context: str, continuation: str) -> float:
    """What the model "thinks" of a continuation: mostly the same as the other, so that they are variants."""
    alike = chance(context, continuation)
    return -round(4 * alike + chance(model, context, continuation), 6) - 0.1 * len(continuation)


def written(model: str, context: str) -> str:
    """What the model writes: the right sum, or a wrong one, in one of two manners."""
    known = {row["question"]: row["answer"] for row in SUMS}
    right = next((answer for question, answer in known.items() if question in context), "0")
    answer = right if chance(model, context, "sum") < 0.6 else "1"
    return f"It is {answer}." if chance(context, "manner") < 0.75 else f"I say {answer}"
