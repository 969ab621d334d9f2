"""What lm-eval logs of an item beside what its columns hold: packed as JSON, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from qeval.base.errors import QevalError
from qeval.base.records import Item

_Form = TypeVar("_Form")

Responses = list[list[Any]]
"""For each question its answers, as lm-eval writes them: texts, or [log-likelihood, greedy] as texts."""


@dataclass(frozen=True)
class Filtered:
    """What one filter left of an item's answers, one for each question, and what each metric says of it."""

    answers: list[Any]
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Logged:
    """An item as lm-eval logs it: what the model answered, what came of it by each filter, and the right
    answer in lm-eval's words where they are not those that are kept of it."""

    responses: Responses = field(default_factory=list)
    filters: dict[str, Filtered] = field(default_factory=dict)
    target: str | None = None


def as_logged(value: Any) -> Any:
    """An answer as lm-eval writes it: lists of lists, and all that is in them as text."""
    if type(value) is list:  # most are lists of texts: no call for each of these
        return [part if type(part) is str else as_logged(part) for part in value]
    return [as_logged(part) for part in value] if isinstance(value, list | tuple) else str(value)


def pack(
    logged: Logged,
    scores: Sequence[float] = (),
    texts: Sequence[str] = (),
    default: Callable[[Any], Any] | None = None,
) -> str:
    """JSON of `logged`, without what `scores` and `texts` of the item say already. `default` makes JSON of
    values of metrics that have none."""
    parts: dict[str, Any] = {}
    responses = logged.responses
    if (
        scores
        and (greedy := [pair[1] == "True" for (pair,) in _pairs(responses)])
        and _scored(scores, greedy) == responses
    ):
        parts["greedy"] = greedy
    elif not texts or responses != [list(texts)]:
        parts["responses"] = responses
    parts["filters"] = {
        name: [None if one.answers == _firsts(responses) else one.answers, one.metrics]
        for name, one in logged.filters.items()
    }
    if logged.target is not None:
        parts["target"] = logged.target
    return (_encoder(default) if default else _ENCODER).encode(parts)


def _encoder(default: Callable[[Any], Any] | None = None) -> json.JSONEncoder:
    return json.JSONEncoder(ensure_ascii=False, default=default, separators=(",", ":"))


_ENCODER = _encoder()  # json.dumps makes one for each value


def unpack(text: str, scores: Sequence[float] = (), texts: Sequence[str] = ()) -> Logged:
    """What `pack` packed; nothing of an item of which nothing was kept. Raises QevalError for other text."""
    if not text:
        return Logged()
    parts = _typed(text, _Packed)
    if parts.greedy is not None:
        responses = _scored(scores, parts.greedy)
    else:
        responses = [list(texts)] if parts.responses is None else parts.responses
    firsts = _firsts(responses)
    filters = {
        name: Filtered(firsts if answers is None else answers, metrics)
        for name, (answers, metrics) in parts.filters.items()
    }
    return Logged(responses, filters, parts.target)


class _Packed(msgspec.Struct):
    """What `pack` packs."""

    filters: dict[str, tuple[Any, dict[str, Any]]]
    greedy: list[bool] | None = None
    responses: Responses | None = None
    target: str | None = None


def _typed(text: str, form: type[_Form]) -> _Form:
    """JSON that is kept of an item, in a form. Raises QevalError where it is another thing."""
    try:
        return msgspec.convert(json.loads(text), form)
    except (ValueError, RecursionError) as error:
        raise QevalError(
            f"What was logged of an item is damaged ({' '.join(str(error).split())[:120]}).",
            "Score the variant again.",
        ) from error


def _pairs(responses: Responses) -> list[list[Any]]:
    """The responses where each is one pair, else none."""
    fit = all(len(some) == 1 and isinstance(some[0], list) and len(some[0]) == 2 for some in responses)  # noqa: PLR2004 - a pair
    return responses if fit else []


def _scored(scores: Sequence[float], greedy: Sequence[bool]) -> Responses:
    if len(scores) != len(greedy):
        return []
    return [[[str(score), str(flag)]] for score, flag in zip(scores, greedy, strict=True)]


def _firsts(responses: Responses) -> list[Any]:
    """What lm-eval's usual filter leaves: the first answer to each question."""
    return [some[0] for some in responses if some]


# --- what was asked -----------------------------------------------------------------------------


def pack_arguments(asked: Sequence[Sequence[Any]], item: Item) -> str:
    """What lm-eval handed to the model for an item (a context and a continuation or options, or a text), as
    JSON in which null is the item's prompt; "" where it is the prompt with each of the item's choices."""
    asked = [list(arguments) for arguments in asked]
    if asked == _plain(item):
        return ""
    short = [[None if part == item.prompt else part for part in arguments] for arguments in asked]
    return _ENCODER.encode(short)


def arguments_of(item: Item) -> list[list[Any]]:
    """What lm-eval handed to the model for an item, question by question."""
    if not item.arguments:
        return _plain(item)
    return [
        [item.prompt if part is None else part for part in some]
        for some in _typed(item.arguments, list[list[Any]])
    ]


def _plain(item: Item) -> list[list[Any]]:
    return [[item.prompt, choice] for choice in item.choices] or [[item.prompt]]


def arguments_table(asked: Sequence[Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """They as lm-eval writes them: gen_args_0 with arg_0, arg_1 ..."""
    return {
        f"gen_args_{number}": {f"arg_{place}": part for place, part in enumerate(some)}
        for number, some in enumerate(asked)
    }


def listed_arguments(table: Mapping[str, Any] | Sequence[Any]) -> list[list[Any]]:
    """What `arguments_table` gave, or the plain lists that are logged in memory. Raises TypeError for texts,
    whose letters are no arguments."""
    values = table.values() if isinstance(table, Mapping) else table
    if isinstance(table, str) or any(isinstance(some, str) for some in values):
        raise TypeError("a text where a list of arguments belongs")
    return [list(some.values()) if isinstance(some, Mapping) else list(some) for some in values]
