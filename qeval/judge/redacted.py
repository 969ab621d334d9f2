"""What a gate found without paths of models and names of files: judged by real names, shown without."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

from qeval.base.protocols import OF_FILES, OWN
from qeval.base.records import Policy
from qeval.base.redacted import hiding
from qeval.compare.evidence import Evidence
from qeval.compare.fidelity import names_without_files
from qeval.judge.gate import Outcome

_OWN = re.compile(rf"(?:{OWN}(?:,\d+)?(?:\[.*\])?|\*)")
"""What names no file of a person's behind `text:`, `prompts:` or `trace:`."""


def without_paths(outcome: Outcome, evidence: Evidence, paths: dict[str, str] | None = None) -> Outcome:
    """An outcome without the paths of models, the names of protocols' files and of the rules on them; the
    evidence is what was judged, `paths` what `hiding` knows of other runs."""
    names = _named_by_rules(outcome.policy) | names_without_files(evidence.fidelity)
    hide = hiding(evidence.run, paths)[1]
    known = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))

    def shown(text: str) -> str:
        if names:
            text = re.sub(rf"(?<!\w)(?:{known})", lambda found: names[found[0]], text)
        return hide(text)

    made: Outcome = _renamed(outcome, shown)
    return made


def _named_by_rules(policy: Policy) -> dict[str, str]:
    """Other words for the protocols with files, and the patterns of such, that rules name."""
    names: dict[str, str] = {}
    for rule in policy.rules:
        kind, _, rest = rule.tasks.partition(":")
        if kind in OF_FILES and rest and not _OWN.fullmatch(rest):
            names.setdefault(rule.tasks, f"{kind}:[file {len(names) + 1}]")
    return names


def _renamed(value: Any, shown: Callable[[str], str]) -> Any:
    """A value with each text in it as it is shown."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, tuple):
        return tuple(_renamed(one, shown) for one in value)
    if isinstance(value, dict):
        return {shown(key): _renamed(one, shown) for key, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: _renamed(getattr(value, field.name), shown) for field in fields(value)}
        return replace(value, **changed)
    return value
