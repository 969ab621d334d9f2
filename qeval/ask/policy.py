"""Policies: TOML, [tool.qeval.gate] of a pyproject.toml, or --max-drop words -> Policy.

Names in a file are those of Rule and Policy. A rule says nothing twice: exactly one of `max_drop`,
`min_recovery`, `max_ppl_ratio` and `max_flips` is its limit.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qeval.base.errors import UsageError, did_you_mean
from qeval.base.records import Policy, Rule
from qeval.base.rules import LIMITS

DEFAULTS = ("confidence", "tier", "metric")  # what [gate] may set for all rules
FORGIVENESS = ("allow_limited", "allow_inconclusive")
TIERS = ("required", "advisory")
_RULE_KEYS = (*LIMITS, *DEFAULTS, "tasks", "variants")
_EXAMPLE = 'For example: [[rule]] tasks = "mmlu", max_drop = 0.5'


def load(path: Path) -> Policy:
    """Read a policy file, or the table [tool.qeval.gate] where the file is called pyproject.toml.

    Raises UsageError: no such file, not TOML, an unknown key, a value of the wrong type or range, no
    required rule.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The policy {path} cannot be read: {error.strerror}.", "Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"The policy {path} is not valid TOML: {error}.", "Correct the file.") from error
    if path.name == "pyproject.toml":
        table = _from_project(table, path)
    return parse(table, str(path))


def _from_project(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    gate = table.get("tool", {}).get("qeval", {}).get("gate")
    if not isinstance(gate, Mapping):
        raise UsageError(f"{path} has no table [tool.qeval.gate].", "Add one, or name a policy file.")
    return {"gate": {k: v for k, v in gate.items() if k != "rule"}, "rule": gate.get("rule", [])}


def parse(table: Mapping[str, Any], source: str = "") -> Policy:
    """The policy that the parsed TOML `table` describes; `source` names it in errors and outputs.

    `[gate]` may hold defaults for all rules (confidence, tier, metric), what is forgiven (allow_limited,
    allow_inconclusive), and limits, which then make a first rule for every task of the suite.
    """
    _only_known(table, ("gate", "rule"), source)
    gate = table.get("gate", {})
    entries = table.get("rule", [])
    if not isinstance(gate, Mapping) or not isinstance(entries, list):
        raise UsageError(f"{source}: [gate] is a table, [[rule]] a list of tables.", _EXAMPLE)
    _only_known(gate, (*DEFAULTS, *FORGIVENESS, *LIMITS), f"{source}, [gate]")
    defaults = {key: gate[key] for key in DEFAULTS if key in gate}
    rules = [_rule({**defaults, key: gate[key]}, f"{source}, [gate]") for key in LIMITS if key in gate]
    for number, entry in enumerate(entries, 1):
        where = f"{source}, rule {number}"
        if not isinstance(entry, Mapping):
            raise UsageError(f"{where} is not a table.", _EXAMPLE)
        _only_known(entry, _RULE_KEYS, where)
        rules.append(_rule({**defaults, **entry}, where))
    flags = {key: _checked(key, gate[key], f"{source}, [gate]") for key in FORGIVENESS if key in gate}
    return checked(Policy(tuple(rules), source=source, **flags))


def from_max_drop(
    values: Sequence[str] = (),
    *,
    max_ppl_ratio: float | None = None,
    confidence: float = 0.95,
    allow_limited: bool = False,
    allow_inconclusive: bool = False,
) -> Policy:
    """The policy of `--max-drop 1.0 --max-drop mmlu=0.5`, limits in percentage points.

    A bare number holds for every task of the suite that has points (for a group: its pooled row);
    `NAME=POINTS` for the rows whose id matches NAME, over the bare number. A drop in points means nothing
    for a perplexity: it is judged where `max_ppl_ratio` is given, and else named as not judged.

    Raises UsageError for anything that is not such a number.
    """
    rules = [_drop(value, confidence) for value in values]
    rules.sort(key=lambda rule: rule.tasks != "*")  # later rules win, so the general one goes first
    if max_ppl_ratio is not None:
        entry = {"max_ppl_ratio": max_ppl_ratio, "confidence": confidence}
        rules.append(_rule(entry, "--max-ppl-ratio"))
    words = [f"--max-drop {value}" for value in values]
    words += [f"--max-ppl-ratio {max_ppl_ratio}"] if max_ppl_ratio is not None else []
    return checked(
        Policy(
            tuple(rules),
            allow_limited=allow_limited,
            allow_inconclusive=allow_inconclusive,
            source=" ".join(words) or "the command line",
        )
    )


def _drop(value: str, confidence: float) -> Rule:
    name, equals, number = value.rpartition("=")
    if equals and not name.strip():
        raise UsageError(f"--max-drop {value!r} names no task.", "Write e.g. --max-drop mmlu=0.5.")
    try:
        points = float(number)
    except ValueError as error:
        raise UsageError(
            f"--max-drop {value!r} is not a number of percentage points.",
            "Write e.g. --max-drop 1.0, or --max-drop mmlu=0.5.",
        ) from error
    entry = {"tasks": name.strip() or "*", "max_drop": points, "confidence": confidence}
    return _rule(entry, f"--max-drop {value}")


def checked(policy: Policy) -> Policy:
    """The policy, if anything can come of it. Raises UsageError where no rule is required."""
    if not any(rule.tier == "required" for rule in policy.rules):
        raise UsageError(
            f"{policy.source or 'The policy'} has no required rule, so it could never fail.", _EXAMPLE
        )
    return policy


def _rule(entry: Mapping[str, Any], where: str) -> Rule:
    limits = [key for key in LIMITS if key in entry]
    if len(limits) != 1:
        found = " and ".join(limits) or "none"
        raise UsageError(f"{where} needs exactly one limit and has {found}.", f"One of: {', '.join(LIMITS)}.")
    return Rule(**{key: _checked(key, value, where) for key, value in entry.items()})


def _checked(key: str, value: Any, where: str) -> Any:
    """The value, if it has the type and the range that its key asks for."""
    if key in FORGIVENESS:
        good, need = isinstance(value, bool), "true or false"
    elif key == "tier":
        good, need = value in TIERS, f"one of {', '.join(TIERS)}"
    elif key in ("tasks", "variants", "metric"):
        good, need = isinstance(value, str) and bool(value.strip()), "a name or a pattern such as mmlu_*"
    else:
        good, need = _in_range(key, value)
    if not good:
        raise UsageError(f"{where}: {key} = {value!r} is not allowed.", f"It must be {need}.")
    return float(value) if key in LIMITS or key == "confidence" else value


def _in_range(key: str, value: Any) -> tuple[bool, str]:
    low, high, need = {
        "confidence": (0.5, 1.0, "between 0.5 and 1, both excluded; 0.95 is usual"),
        "max_drop": (0.0, 100.0, "a number of percentage points above 0 and below 100"),
        "min_recovery": (0.0, 1.0, "a share above 0 and below 1, such as 0.99"),
        "max_ppl_ratio": (1.0, math.inf, "a ratio above 1, such as 1.02"),
        "max_flips": (0.0, 1.0, "a share of items above 0 and below 1, such as 0.05"),
    }[key]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and low < value < high, need


def _only_known(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            hint = did_you_mean("max_drop" if key == "margin" else key, known)
            raise UsageError(f"{where}: there is no key {key!r}.", hint)


def choose(
    *,
    policy: Path | None,
    max_drop: Sequence[str],
    max_ppl_ratio: float | None = None,
    confidence: float = 0.95,
    allow_limited: bool = False,
    allow_inconclusive: bool = False,
) -> Policy | None:
    """The policy that command line words name: a file, or the short form, or None where they name none.

    What the command line forgives is forgiven on top of what the file does. Raises UsageError for both at
    once, and what `load` and `from_max_drop` raise.
    """
    short = bool(max_drop) or max_ppl_ratio is not None
    if policy is not None and short:
        raise UsageError("--policy and --max-drop exclude each other.", "Write the limit into the policy.")
    if policy is None and not short:
        return None
    if policy is None:
        found = from_max_drop(max_drop, max_ppl_ratio=max_ppl_ratio, confidence=confidence)
    else:
        found = load(policy)
    return replace(
        found,
        allow_limited=found.allow_limited or allow_limited,
        allow_inconclusive=found.allow_inconclusive or allow_inconclusive,
    )


def demand(**words: Any) -> Policy:
    """`choose`, or [tool.qeval.gate] of the pyproject.toml here; UsageError where neither says anything."""
    found = choose(**words)
    if found is None and _here().is_file() and "[tool.qeval.gate" in _here().read_text(encoding="utf-8"):
        found = choose(**{**words, "policy": _here()})
    if found is None:
        raise UsageError("Nothing says what loss is allowed.", "Write e.g.: qeval gate --max-drop 1.0")
    return found


def _here() -> Path:
    return Path("pyproject.toml")
