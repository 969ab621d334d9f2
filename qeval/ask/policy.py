"""Policies: TOML, [tool.qeval.gate] of a pyproject.toml, or --max-drop words -> Policy.

Names in a file are those of Rule and Policy. A rule says nothing twice: exactly one of `max_drop`,
`min_recovery`, `max_ppl_ratio`, `max_flips`, `max_kl` and `min_top1_agreement` is its limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from qeval.ask.policy_files import refuse_another
from qeval.base import reading
from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.base.places import tasks_dir
from qeval.base.reading import content
from qeval.base.records import Policy, Rule, Tier
from qeval.base.rules import LIMITS, PERPLEXITY_LIMITS, limit_of
from qeval.base.tables import read, typed

DEFAULTS = ("confidence", "tier", "metric")  # what [gate] may set for all rules
FORGIVENESS = (
    "allow_limited",
    "allow_inconclusive",
    "allow_different_models",
    "allow_unproved_model",
    "allow_identical",
    "allow_unquantised",
)
_MEANT = {"margin": "max_drop"}
_EXAMPLE = 'For example: [[rule]] tasks = "mmlu", max_drop = 0.5'
_MOST = 1e300  # infinity is no limit
_LEAST = 1e-9  # of less no number of items on earth could prove anything, and its square is 0
Points = Annotated[
    float,
    Meta(ge=_LEAST, lt=100, description="a number of percentage points above 0 (1e-9 or more) and below 100"),
]
Recovery = Annotated[float, Meta(ge=_LEAST, lt=1, description="a share above 0 and below 1, such as 0.99")]
Ratio = Annotated[float, Meta(gt=1, lt=_MOST, description="a ratio above 1, such as 1.02")]
Flips = Annotated[
    float,
    Meta(ge=_LEAST, lt=1, description="a share of items above 0 (1e-9 or more) and below 1, such as 0.05"),
]
Nats = Annotated[
    float, Meta(ge=_LEAST, lt=_MOST, description="a number of nats above 0 (1e-9 or more), such as 0.02")
]
Agreement = Annotated[float, Meta(gt=0, lt=1, description="a share above 0 and below 1, such as 0.95")]
Confidence = Annotated[
    float, Meta(gt=0.5, lt=1, description="between 0.5 and 1, both excluded; 0.95 is usual")
]
Pattern = Annotated[str, Meta(pattern=r"\S", description="a name or a pattern such as mmlu_*")]


class Limits(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What both [gate] and a [[rule]] may say of rules."""

    max_drop: Points | None = None
    min_recovery: Recovery | None = None
    max_ppl_ratio: Ratio | None = None
    max_flips: Flips | None = None
    max_kl: Nats | None = None
    min_top1_agreement: Agreement | None = None
    confidence: Confidence | None = None
    tier: Tier | None = None
    metric: Pattern | None = None


class RuleTable(Limits, forbid_unknown_fields=True, omit_defaults=True):
    """A [[rule]] of a policy: exactly one limit, and which rows and variants it is for."""

    tasks: Pattern | None = None
    variants: Pattern | None = None
    required: bool | None = None


class GateTable(Limits, forbid_unknown_fields=True, omit_defaults=True):
    """[gate] of a policy: defaults of all rules, limits that hold for every task, what is forgiven."""

    allow_limited: bool = False
    allow_inconclusive: bool = False
    allow_different_models: bool = False
    allow_unproved_model: bool = False
    allow_identical: bool = False
    allow_unquantised: bool = False
    ungated: tuple[Pattern, ...] = ()


class PolicyTable(msgspec.Struct, forbid_unknown_fields=True):
    """A policy's file."""

    gate: GateTable = msgspec.field(default_factory=GateTable)
    rule: tuple[RuleTable, ...] = ()


_PROJECT = "pyproject.toml"


def load(path: Path) -> Policy:
    """Read a policy file, or the table [tool.qeval.gate] where the file is called pyproject.toml; a mere name
    that is no file here may be that of a policy which comes with qeval.

    Raises UsageError: no such file, not TOML, an unknown key, a value of the wrong type or range, no
    required rule.
    """
    path = _shipped(path)
    refuse_another(path)
    table = read(path, "policy")
    if path.name != _PROJECT and "tool" in table:
        raise UsageError(
            f"{path} has a table [tool], as a {_PROJECT} has; the file's name decides, and this is none.",
            f"Call the file {_PROJECT}, or write [gate] for [tool.qeval.gate] in it.",
        )
    return parse(_from_project(table, path) if path.name == _PROJECT else table, str(path))


def _shipped(path: Path) -> Path:
    """The file that is meant: one that comes with qeval where only its name was given and nothing here has
    it."""
    if path.name != str(path) or path.suffix or path.exists():
        return path
    ours = {file.stem: file for file in (tasks_dir() / "policies").glob("*.toml")}
    if str(path) not in ours:
        raise UsageError(
            f"The policy {path} cannot be read: it is no file here, and none that comes with qeval.",
            did_you_mean(str(path), ours),
        )
    return ours[str(path)]


def _from_project(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    for key in ("tool", "qeval", "gate"):
        found = table.get(key)
        if not isinstance(found, Mapping):
            raise UsageError(f"{path} has no table [tool.qeval.gate].", "Add one, or name a policy file.")
        table = found
    return {"gate": {k: v for k, v in table.items() if k != "rule"}, "rule": table.get("rule", [])}


def parse(table: Mapping[str, Any], source: str = "") -> Policy:
    """The policy that the parsed TOML `table` describes; `source` names it in errors and outputs.

    `[gate]` may hold defaults for all rules (confidence, tier, metric), what is forgiven (allow_limited,
    allow_inconclusive ...), and limits, which then make a first rule for every task of the suite: points
    bring PERPLEXITY_LIMITS with them where no rule speaks of perplexities.
    """
    found = typed(table, PolicyTable, source, meant=_MEANT)
    said = msgspec.to_builtins(found.gate)
    defaults = {key: said[key] for key in DEFAULTS if key in said}
    rules = [_rule({**defaults, key: said[key]}, f"{source}, [gate]") for key in LIMITS if key in said]
    for number, entry in enumerate(found.rule, 1):
        rules.append(_rule({**defaults, **msgspec.to_builtins(entry)}, f"{source}, rule {number}"))
    _refuse_contradictions(rules[-len(found.rule) :] if found.rule else [], source)
    if "max_drop" in said and not any(rule.max_ppl_ratio is not None for rule in rules):
        rules += _perplexities(
            defaults.get("confidence", Rule().confidence), defaults.get("tier", "required")
        )
    return checked(
        Policy(
            tuple(rules),
            source=source,
            ungated=found.gate.ungated,
            **{name: getattr(found.gate, name) for name in FORGIVENESS},
        )
    )


def _refuse_contradictions(rules: Sequence[Rule], source: str) -> None:
    """Raise UsageError for two [[rule]]s that name the very same and allow different losses: which of them
    was meant is not for their order to say."""
    said: dict[Rule, tuple[int, Rule]] = {}
    for number, rule in enumerate(rules, 1):
        limit, _ = limit_of(rule)
        alike: dict[str, Any] = {limit: 1.0, "confidence": Rule().confidence, "required": True}
        first, other = said.setdefault(replace(rule, **alike), (number, rule))
        if other != rule:
            raise UsageError(
                f"{source}: rules {first} and {number} both say {limit} for the tasks {rule.tasks!r} and the "
                f"variants {rule.variants!r}.",
                "Leave one of them out.",
            )


def from_max_drop(
    values: Sequence[str] = (),
    *,
    max_ppl_ratio: float | None = None,
    confidence: float = 0.95,
    ungated: Sequence[str] = (),
    **allowed: bool,
) -> Policy:
    """The policy of `--max-drop 1.0 --max-drop mmlu=0.5`, limits in percentage points.

    A bare number holds for every task of the suite that has points (for a group: its pooled row);
    `NAME=POINTS` for the rows whose id matches NAME, over the bare number. A drop in points means nothing
    for a perplexity: that is judged by `max_ppl_ratio`, or by PERPLEXITY_LIMITS where it is not given.

    Raises UsageError for anything that is not such a number, and for two of them for the same tasks.
    """
    rules = [_drop(value, confidence) for value in values]
    bare = [value for value, rule in zip(values, rules, strict=True) if rule.tasks == "*"]
    _refuse_two_limits(values, rules)
    rules.sort(key=lambda rule: rule.tasks != "*")  # later rules win, so the general one goes first
    if max_ppl_ratio is not None:
        entry = {"max_ppl_ratio": max_ppl_ratio, "confidence": confidence}
        rules.append(_rule(entry, "--max-ppl-ratio"))
    elif bare:
        rules += _perplexities(confidence)
    words = [f"--max-drop {value}" for value in values]
    words += [f"--max-ppl-ratio {max_ppl_ratio}"] if max_ppl_ratio is not None else []
    return checked(
        Policy(
            tuple(rules),
            source=" ".join(words) or "the command line",
            ungated=tuple(ungated),
            **allowed,
        )
    )


def _refuse_two_limits(values: Sequence[str], rules: Sequence[Rule]) -> None:
    said: dict[str, str] = {}
    for value, rule in zip(values, rules, strict=True):
        whom = "all tasks" if rule.tasks == "*" else rule.tasks
        if whom in said:
            raise UsageError(
                f"--max-drop is given twice for {whom}: {said[whom]} and {value}.", "Leave one of them out."
            )
        said[whom] = value


def _perplexities(confidence: float, tier: Tier = "required") -> list[Rule]:
    """The limits of perplexities where only points were spoken of."""
    return [
        Rule(metric=metric, max_ppl_ratio=ratio, confidence=confidence, tier=tier, required=False)
        for metric, ratio in PERPLEXITY_LIMITS.items()
    ]


def _drop(value: str, confidence: float) -> Rule:
    name, equals, words = value.rpartition("=")
    if equals and not name.strip():
        raise UsageError(f"--max-drop {value!r} names no task.", "Write e.g. --max-drop mmlu=0.5.")
    try:
        points = reading.number(words)
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
    """The rule of an entry with everything that holds for it."""
    limits = [key for key in LIMITS if key in entry]
    if len(limits) != 1:
        found = " and ".join(limits) or "none"
        raise UsageError(f"{where} needs exactly one limit and has {found}.", f"One of: {', '.join(LIMITS)}.")
    return Rule(**msgspec.to_builtins(typed(entry, RuleTable, where)))


def choose(
    *,
    policy: Path | None,
    max_drop: Sequence[str],
    max_ppl_ratio: float | None = None,
    confidence: float | None = None,
    ungated: Sequence[str] = (),
    **allowed: bool,
) -> Policy | None:
    """The policy that command line words name: a file, or the short form, or None where they name none.

    What the command line forgives is forgiven on top of what the file does. Raises UsageError for both at
    once, and what `load` and `from_max_drop` raise.
    """
    short = bool(max_drop) or max_ppl_ratio is not None
    if policy is not None and short:
        raise UsageError("--policy and --max-drop exclude each other.", "Write the limit into the policy.")
    if confidence is not None and not short:
        raise UsageError(
            "--confidence goes with --max-drop and --max-ppl-ratio.",
            f"Write confidence = {confidence:g} into the policy."
            if policy
            else f"Add a limit: --max-drop 1.0 --confidence {confidence:g}",
        )
    if policy is None and not short:
        _refuse_to_forgive(ungated, allowed)
        return None
    if policy is None:
        found = from_max_drop(
            max_drop,
            max_ppl_ratio=max_ppl_ratio,
            confidence=Rule().confidence if confidence is None else confidence,
        )
    else:
        found = load(policy)
    forgiven: dict[str, Any] = {
        name: getattr(found, name) or allowed.get(name, False) for name in FORGIVENESS
    }
    return replace(found, ungated=(*found.ungated, *ungated), **forgiven)


def _refuse_to_forgive(ungated: Sequence[str], allowed: Mapping[str, bool]) -> None:
    """Raise UsageError for what is let pass where nothing is judged; runs of different models may be joined
    all the same."""
    said = [name for name in FORGIVENESS if allowed.get(name) and name != "allow_different_models"]
    if said or ungated:
        option = f"--{(said or ['ungated'])[0].replace('_', '-')}"
        raise UsageError(
            f"{option} is for a policy, and none is given.", "Add one, for instance: --max-drop 1.0"
        )


def exceptions(policy: Policy) -> tuple[str, ...]:
    """What a policy lets pass, as its file says it."""
    allowed = [name for name in FORGIVENESS if getattr(policy, name)]
    return (*allowed, *(f"ungated {name}" for name in policy.ungated))


def demand(command: str = "qeval gate", **words: Any) -> Policy:
    """`choose`, or [tool.qeval.gate] of the pyproject.toml here; UsageError where neither says anything, with
    the `command` as it should have been typed."""
    names = ("policy", "max_drop", "max_ppl_ratio", "confidence")
    said = any(words.get(name) not in (None, ()) for name in names)
    if not said and _gated_here():
        said, words = True, {**words, "policy": _here()}
    found = choose(**words) if said else None
    if found is None:
        raise UsageError("Nothing says what loss is allowed.", f"Write e.g.: {command} --max-drop 1.0")
    return found


def _gated_here() -> bool:
    """Whether the pyproject.toml here has a gate's table; one that cannot be read says nothing."""
    try:
        data = content(_here())
    except OSError:
        return False
    return b"[tool.qeval.gate" in data or (b"qeval" in data and _has_gate())


def _has_gate() -> bool:
    """Whether the table is there in another spelling: gate.max_drop below [tool.qeval]."""
    try:
        found: Any = read(_here(), "file")
    except QevalError:
        return False
    for key in ("tool", "qeval"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return isinstance(found, Mapping) and "gate" in found


def _here() -> Path:
    return Path("pyproject.toml")
