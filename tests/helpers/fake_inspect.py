"""The little of inspect_ai that reads a log, for JSON logs: where the package itself is not installed."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path


class _Record(types.SimpleNamespace):
    """An object of JSON; what it does not have is None, as a field that is not set."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

    @property
    def text(self):
        return self.content

    def model_dump_json(self, **_):
        return json.dumps(self, default=vars)


_TABLES = {
    "scores", "metrics", "model_args", "task_args", "task_args_passed", "packages", "model_roles", "options",
    "params",
}  # fmt: skip


def _record(value, key=""):
    if isinstance(value, list):
        return [_record(part) for part in value]
    if not isinstance(value, dict):
        return value
    parts = {name: _record(part, name) for name, part in value.items()}
    return parts if key in _TABLES else _Record(**parts)


def read_eval_log(path):
    return _record(json.loads(Path(path).read_text()))


def value_to_float():
    """Inspect's default: correct, partial, incorrect, no answer."""
    return lambda value: {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}.get(value, value)


def install(patch):
    """Put the modules in their places, with pytest's monkeypatch."""
    for name, parts in {
        "inspect_ai": {},
        "inspect_ai.log": {"read_eval_log": read_eval_log},
        "inspect_ai.scorer": {"value_to_float": value_to_float},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(parts)
        patch.setitem(sys.modules, name, module)
