"""lm-eval's own YAML configuration of a run (`lm_eval run --config FILE`) as a suite: what it asks acts, or
is refused with the option that says it here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qeval.ask import model_args
from qeval.ask.model_args import Asked
from qeval.ask.suite_files import no_file, refuse_another
from qeval.base import reading
from qeval.base.errors import UsageError, did_you_mean
from qeval.base.records import Suite, Task
from qeval.base.settings import Settings

ENDINGS = (".yaml", ".yml")
_ASKED = ("tasks", "num_fewshot", "limit")
"""What becomes the suite."""
_ASIDE = frozenset(
    [
        "config",
        "model",
        "model_args",
        "batch_size",
        "max_batch_size",
        "device",
        "use_cache",
        "cache_requests",
        "check_integrity",
        "write_out",
        "log_samples",
        "output_path",
        "show_config",
        "verbosity",
        "wandb_args",
        "wandb_config_args",
        "hf_hub_log_args",
        "trackio_args",
        "confirm_run_unsafe_code",
        "trust_remote_code",
    ]
)
"""What says where and on what lm-eval runs, not what is asked; here --model and other options say it (of
`model_args` see there)."""
_TURNS = "fewshot_as_multiturn"
_REFUSED = {
    "gen_kwargs": "Leave it out of the file: --max-gen-toks and --temperature say it here.",
    "system_instruction": "Leave it out of the file: there is no system prompt here.",
    "samples": "Leave it out of the file: --limit takes the first items.",
    "predict_only": "Leave it out of the file: everything is scored here.",
    "include_path": "Leave it out of the file, and name that folder with --tasks-dir.",
    "metadata": "Leave it out of the file, and write it into the task's own YAML.",
}
"""Keys that change what is asked and have nothing here that would do the same."""


def _fewshot_seed(value: Any) -> Any:
    """The seed of the few-shot draw: the last of lm-eval's four, or the one that is for all."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
    number = reading.whole(str(parts[-1]).strip()) if parts else None
    return value if number is None else number


_OPTIONS: Mapping[str, tuple[str, Callable[[Any], Any], str]] = {
    "seed": ("seed", _fewshot_seed, "--seed {}"),
    "apply_chat_template": ("chat_template", bool, "--chat-template"),
}
"""Keys that a setting answers to: its name, what the file's value means for it, and the option."""
_KNOWN = (*_ASKED, *_OPTIONS, *sorted(_ASIDE), *_REFUSED, _TURNS)


_NOTHING = Asked()
_BEGIN = "Such a configuration begins as: tasks: [arc_easy]"


def is_config(name: str) -> bool:
    """Whether a suite's name is that of such a file."""
    return name.endswith(ENDINGS)


def suite_of(path: Path) -> Suite:
    """The suite that a configuration asks for; its tasks judged by their main metrics, as with --tasks.

    Raises UsageError where the file cannot be read, names no task or has a key that would not act.
    """
    if not path.exists():
        raise no_file(path)
    refuse_another(path)
    table = _read(path)
    _check_keys(path, table)
    shots = _whole(path, "num_fewshot", table.get("num_fewshot"), 0)
    limit = _whole(path, "limit", table.get("limit"), 1)
    names = _tasks(path, table.get("tasks"))
    tasks = tuple(Task(name, "", num_fewshot=shots, limit=limit) for name in names)
    return Suite(path.stem, tasks, average=tuple(names), description=f"lm-eval's configuration {path.name}")


def _check_keys(path: Path, table: Mapping[str, Any]) -> None:
    if table and not any(key in _KNOWN for key in table):
        raise UsageError(f"{path} is no suite: it is not lm-eval's configuration of a run.", _BEGIN)
    for key, value in table.items():
        if key not in _KNOWN:
            hint = did_you_mean(str(key), _KNOWN)
            raise UsageError(f"{path}: lm-eval's configuration has no {key!r}.", hint)
        if key in _REFUSED and value:
            raise UsageError(f"{path}: {key} would have no effect.", _REFUSED[key])
    if table.get("apply_chat_template") and table.get(_TURNS) is False:
        raise UsageError(
            f"{path}: {_TURNS}: false would have no effect.",
            "Leave it out: in a chat template each example is a turn.",
        )
    if table.get(_TURNS) and not table.get("apply_chat_template"):
        raise UsageError(
            f"{path}: {_TURNS}: true would have no effect without a chat template.",
            "Leave it out, or write apply_chat_template: true beside it.",
        )


def check_settings(path: Path, settings: Mapping[str, Any], asked: Asked = _NOTHING) -> None:
    """Raises UsageError where a configuration asks for what the run's settings, or what was `asked` of the
    model, do not say."""
    table = _read(path)
    model_args.check(path, table.get("model_args"), asked)
    for key, (name, meaning, option) in _OPTIONS.items():
        value = table.get(key)
        if value is None:
            continue
        if key == "apply_chat_template" and isinstance(value, str):
            raise UsageError(
                f"{path}: apply_chat_template names a template ({value!r}), but only the tokenizer's own "
                "can be applied.",
                "Write apply_chat_template: true, if that is the one you want.",
            )
        wanted, given = meaning(value), settings.get(name, getattr(Settings, name))
        if wanted != given:
            words = option.format(wanted)
            hint = f"Leave {words} out, or {key} out of the file." if wanted is False else f"Add {words}."
            raise UsageError(f"{path} has {key}: {value}, and this run does not.", hint)


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.load(reading.text(path, reading.TABLE), _loader())  # noqa: S506 - a safe loader
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {reading.told(error)}.", reading.remedy(error)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())[:120]
        raise UsageError(f"{path} is not YAML ({why}).", "Correct the file.") from error
    if not isinstance(found, dict):
        what = reading.kind_of(found)
        raise UsageError(f"{path} holds {what}, which is not an lm-eval configuration.", _BEGIN)
    return found


def _loader() -> Any:
    """YAML's own safe loader, but that a key is there once: of two the first was lost in silence."""
    import yaml

    class Once(yaml.SafeLoader):
        """Raises ConstructorError for a key that a table has twice."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            again = next((name for name in names if names.count(name) > 1), None)
            if again is not None:
                raise yaml.constructor.ConstructorError(
                    None, None, f"it has {again!r} twice", node.start_mark
                )
            return super().construct_mapping(node, deep)

    return Once


def _tasks(path: Path, value: Any) -> list[str]:
    """The names of the tasks, from a list or "a,b". Raises UsageError for none, or one that is no name."""
    parts = value.split(",") if isinstance(value, str) else value
    listed = parts if isinstance(parts, list) else []
    names = [part.strip() if isinstance(part, str) else part for part in listed]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UsageError(f"{path}: tasks names no tasks.", "Write for example: tasks: [arc_easy, piqa]")
    again = next((name for name in names if names.count(name) > 1), None)
    if again is not None:
        raise UsageError(f"{path} names the task {again!r} twice.", "Name it once.")
    return names


def _whole(path: Path, name: str, value: Any, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 or value < least:
        raise UsageError(
            f"{path}: {name} = {value!r} is not allowed.", f"It must be a whole number, {least} or more."
        )
    return int(value)
