"""Invented text: words in an order that a seed decides, and the same for the same seed."""

from __future__ import annotations

import random

WORDS = [
    "king",
    "river",
    "law",
    "trade",
    "army",
    "grain",
    "priest",
    "city",
    "tax",
    "ship",
    "peace",
    "war",
    "field",
    "crown",
    "market",
    "coast",
]


def words(number: int, seed: object) -> str:
    """So many words."""
    return " ".join(random.Random(str(seed)).choices(WORDS, k=number))
