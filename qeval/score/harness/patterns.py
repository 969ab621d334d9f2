"""What a tokenizer's regular expression can match across: read from its text, or refused."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

Kinds = frozenset[str]
SPACE, NEWLINE, OTHER, SOLID = " ", "\n", "\t", "x"
"""Kinds of characters: a space, a newline, other white space, and everything else."""
_PROBES = {
    SPACE: " ",
    NEWLINE: "\n",
    OTHER: "\t\r\x0b\x0c\x85\xa0\u2003\u2028\u3000",
    SOLID: "".join(letter for letter in map(chr, range(33, 0x3100)) if not letter.isspace()),
}
_NOTHING: Kinds = frozenset()


class UnreadableError(Exception):
    """A pattern has more than sequences of classes of characters: nothing is proved of it."""


@dataclass(frozen=True)
class Part:
    """A part of a pattern: whether it can match nothing, the kinds of characters that its matches can begin
    and end with, and the pairs of kinds that can stand beside each other in one."""

    empty: bool = True
    first: Kinds = _NOTHING
    last: Kinds = _NOTHING
    pairs: frozenset[tuple[str, str]] = field(default_factory=frozenset)

    def then(self, other: Part) -> Part:
        """This part and `other` behind it."""
        return Part(
            self.empty and other.empty,
            self.first | (other.first if self.empty else _NOTHING),
            other.last | (self.last if other.empty else _NOTHING),
            self.pairs | other.pairs | _beside(self.last, other.first),
        )

    def either(self, other: Part) -> Part:
        """This part or `other`."""
        return Part(
            self.empty or other.empty,
            self.first | other.first,
            self.last | other.last,
            self.pairs | other.pairs,
        )

    def again(self, *, empty: bool, often: bool) -> Part:
        """This part with a quantifier behind it."""
        pairs = self.pairs | (_beside(self.last, self.first) if often else frozenset())
        return Part(self.empty or empty, self.first, self.last, pairs)


def _beside(left: Kinds, right: Kinds) -> frozenset[tuple[str, str]]:
    return frozenset((one, other) for one in left for other in right)


@dataclass(frozen=True)
class Read:
    """What a pattern tells. `over`: those of a space and a newline that a match can hold behind a character
    that is no white space. `takes_space`: one of its alternatives is white space and nothing else, so that
    none is left between matches. `classes`: the texts of its places."""

    over: frozenset[str]
    takes_space: bool
    classes: frozenset[str]


@functools.cache
def read(pattern: str) -> Read:
    """Raises UnreadableError for a pattern in which more decides than the characters of the match itself, and
    whether white space follows: anchors, references, looks behind, other looks ahead."""
    reader = _Reader(pattern)
    part = reader.alternatives()
    if reader.at < len(pattern):
        raise UnreadableError(pattern)
    over = frozenset(kind for kind in (SPACE, NEWLINE) if (SOLID, kind) in part.pairs)
    return Read(over, bool(reader.tops & {"\\s+", "\\s"}), frozenset(reader.classes))


@functools.cache
def matches(place: str, letters: str) -> bool:
    """Whether a place of a pattern can match one of `letters`, minding their case or not: the tokenizers' own
    engine takes what it matches out of them."""
    from tokenizers import Regex, pre_tokenizers

    try:
        splits = [pre_tokenizers.Split(Regex(text), "removed") for text in (place, f"(?i:{place})")]
    except Exception as error:  # the engine has no class of its own for it
        raise UnreadableError(place) from error
    return any(
        sum(len(part) for part, _ in split.pre_tokenize_str(letters)) < len(letters) for split in splits
    )


class _Reader:
    """Reads a pattern from left to right; `at` is where the rest begins. `tops` are its alternatives."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0
        self.tops: set[str] = set()
        self.classes: set[str] = set()

    def rest(self, *begins: str) -> str:
        """That of `begins` with which the rest begins, taken off it; "" if none."""
        for begin in begins:
            if self.text.startswith(begin, self.at):
                self.at += len(begin)
                return begin
        return ""

    def alternatives(self) -> Part:
        found = self.sequence()
        while self.rest("|"):
            found = found.either(self.sequence())
        return found

    def sequence(self) -> Part:
        found, start = Part(), self.at
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            found = found.then(self.quantified())
        if not self.depth:
            self.tops.add(self.text[start : self.at])
        return found

    def quantified(self) -> Part:
        part = self.one()
        while mark := self.rest("*", "+", "?", "{"):
            empty, often = mark in "*?", mark in "*+"
            if mark == "{":
                low, _, high = self.until("}").partition(",")
                empty, often = low in ("", "0"), high != "1"
            part = part.again(empty=empty, often=often)
            self.rest("?", "+")  # lazy or possessive
        return part

    def one(self) -> Part:
        if self.rest("(?!\\S)"):
            return Part()
        known = self.rest("(?:", "(?i:")
        if not known and self.text.startswith(("(?", "(*"), self.at):
            raise UnreadableError(self.text)
        if known or self.rest("("):
            return self.group()
        return self.of_class("".join(self.character()))

    def group(self) -> Part:
        self.depth += 1
        part = self.alternatives()
        self.depth -= 1
        if not self.rest(")"):
            raise UnreadableError(self.text)
        return part

    def of_class(self, text: str) -> Part:
        self.classes.add(text)
        kinds = _kinds(text)
        return Part(empty=False, first=kinds, last=kinds)

    def character(self) -> Iterator[str]:
        """The text of a class, an escape or a plain character."""
        letter = self.text[self.at]
        self.at += 1
        if letter in "^$":
            raise UnreadableError(self.text)
        yield letter
        if letter == "\\":
            yield from self.escape()
        if letter == "[":
            yield from self.members()

    def escape(self) -> Iterator[str]:
        letter = self.text[self.at : self.at + 1]
        self.at += 1
        if letter not in "sSdDwWpPrntfvxu" and (letter.isalnum() or not letter):
            raise UnreadableError(self.text)  # \b, \A, \1, \k ...
        yield letter
        if letter in "pPxu" and self.rest("{"):
            yield "{" + self.until("}") + "}"
        elif letter in "xu":
            width = 2 if letter == "x" else 4
            yield self.text[self.at : self.at + width]
            self.at += width

    def members(self) -> Iterator[str]:
        """A class after its bracket, with those within it. Operators of sets are more than is read here."""
        yield self.rest("^")
        if self.rest("]"):
            yield "\\]"
        while not self.rest("]"):
            if self.at >= len(self.text) or self.text.startswith(("&&", "||", "--", "~~"), self.at):
                raise UnreadableError(self.text)
            letter = self.text[self.at]
            self.at += 1
            yield letter
            yield from self.escape() if letter == "\\" else self.members() if letter == "[" else ()
        yield "]"

    def until(self, end: str) -> str:
        found, mark, _ = self.text[self.at :].partition(end)
        if not mark:
            raise UnreadableError(self.text)
        self.at += len(found) + 1
        return found


@functools.cache
def _kinds(text: str) -> Kinds:
    """The kinds of characters that one place of a pattern can match."""
    return frozenset(kind for kind, some in _PROBES.items() if matches(text, some))
