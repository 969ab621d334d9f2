"""What lighteval writes: results, and the details of each sample as Parquet, of newer and older releases."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.exchange.readers.shape import UNPROVED, Told, as_results
from qeval.store.unpacking import most_of, too_long, too_many

WRITER = "lighteval"
DETAILS = "details_*.parquet"
_ALL, _AVERAGE, _STDERR = "all", "_average", "_stderr"
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")
_ASKED = (
    "system_prompt", "use_chat_template", "override_chat_template", "chat_template", "max_length",
    "max_model_length", "add_special_tokens", "multichoice_continuations_start_space",
    "pairwise_tokenization",
)  # fmt: skip
"""Settings of a model that shape what it is given."""
_GENERATED = ("generation_size", "stop_sequence", "stop_sequences", "generation_grammar", "num_samples")
"""Settings of a task that shape what the model writes, beside the model's own `generation_parameters`."""
_GUESSED = "its details do not hold what the model was given, so nothing proves that the prompts are the same"
_NEW = ("doc", "model_response", "metric")
_OLD = ("choices", "gold_index", "gold", "predictions", "full_prompt", "example", "metrics")
"""The columns of details that are read, of newer and older releases."""
_REMEDY = "Download it again, or move its details away: without them the results are read as scores."


def is_lightevals(table: Mapping[str, Any]) -> bool:
    """Whether a document is a results file of lighteval."""
    return bool(_general(table)) and isinstance(table.get("results"), dict)


def _general(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """How lighteval was called; the first files of the Open LLM Leaderboard have it as `config`."""
    for name, sign in (("config_general", ""), ("config", "lighteval_sha")):
        found = table.get(name)
        if isinstance(found, dict) and (sign in found or not sign):
            return found
    return {}


def as_lm_eval(table: Mapping[str, Any], stamp: str, details: Sequence[Path]) -> dict[str, Any]:
    """A results file in lm-eval's shape; `details` are the Parquet files that may be its own.

    Raises QevalError for details that are damaged.
    """
    general = _general(table)
    full = [name for name in table["results"] if name != _ALL and _AVERAGE not in name]
    names = _short(full)
    tasks = {names[name]: _told(table, name, _details_of(name, stamp, details)) for name in full}
    return as_results(
        tasks,
        writer=WRITER,
        model=_model(general),
        arguments=_arguments(general),
        packages={WRITER: sha} if (sha := str(general.get("lighteval_sha") or "?")) != "?" else {},
        date=_date(stamp),
        groups=_groups(table["results"], names),
        limit=general.get("max_samples"),
    )


def _model(general: Mapping[str, Any]) -> str:
    made = general.get("model_config")
    return str(general.get("model_name") or (made.get("model_name") if isinstance(made, dict) else "") or "")


def _arguments(general: Mapping[str, Any]) -> dict[str, str]:
    """What tells one variant of a model from another."""
    made = general.get("model_config")
    told = {"dtype": general.get("model_dtype"), "revision": general.get("model_sha")}
    told |= made if isinstance(made, dict) else {}
    names = ("dtype", "revision", "quantization", "quantization_config", "load_in_4bit", "load_in_8bit",
             "adapter_weights", "delta_weights", "subfolder")  # fmt: skip
    return {name: str(told[name]) for name in names if told.get(name)}


def _date(stamp: str) -> str:
    day, _, time = stamp.partition("T")
    return f"{day}T{time.replace('-', ':')}" if time else ""


def _short(names: Iterable[str]) -> dict[str, str]:
    """The name of each task without suite and number of examples, where that tells it from all others."""
    bare = {name: _bare(name) for name in names}
    plain = list(bare.values())
    return {name: short if plain.count(short) == 1 else name for name, short in bare.items()}


def _bare(name: str) -> str:
    """Both leaderboard|arc:challenge|25|0 and arc:challenge|25 are arc:challenge."""
    parts = [part for part in name.split("|") if reading.whole(part) is None]
    return parts[-1] if parts else name


def _groups(results: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, list[str]]:
    """The tasks of which the file has an average, by what stands before their colon."""
    tops = [_bare(name).partition(":")[0] for name in results if _AVERAGE in name]
    return {top: [short for short in names.values() if short.startswith(f"{top}:")] for top in tops}


def _told(table: Mapping[str, Any], name: str, details: Path | None) -> Told:
    said = {metric: value for metric, value in table["results"][name].items() if _is_number(value)}
    config = (table.get("config_tasks") or {}).get(name)
    config = config if isinstance(config, dict) else {}  # "LM Harness task", where the leaderboard wrote it
    lines = None if details is None else _lines(details)
    given = [line.pop("given") for line in lines or ()]
    scored = (
        lines is not None and bool(lines) and all(line["resps"] and len(line["resps"]) > 1 for line in lines)
    )
    return Told(
        means={(metric, "none"): value for metric, value in said.items() if not metric.endswith(_STDERR)},
        errors={
            (metric.removesuffix(_STDERR), "none"): value
            for metric, value in said.items()
            if metric.endswith(_STDERR)
        },
        lines=lines,
        config={
            "output_type": "multiple_choice" if scored else "generate_until",
            "dataset_path": config.get("hf_repo"),
            "dataset_name": config.get("hf_subset"),
            "target_delimiter": "",
            "metric_list": _metric_list(config),
            "generation_kwargs": _settings(_general(table), config, scored=scored),
            **({UNPROVED: [_GUESSED]} if not all(given) else {}),
        },
        counts=_counts(config),
        num_fewshot=next((n for part in name.split("|")[1:] if (n := reading.whole(part)) is not None), None),
        version=(table.get("versions") or {}).get(name, ""),
    )


def _settings(general: Mapping[str, Any], task: Mapping[str, Any], *, scored: bool) -> dict[str, Any]:
    """What decides answers beside the prompt: of choices that are `scored`, not how texts are written."""
    made = general.get("model_config")
    model = {**general, **(made if isinstance(made, dict) else {})}
    names = {name: model.get(name) for name in _ASKED}
    if not scored:
        written = model.get("generation_parameters")
        names |= {**(written if isinstance(written, dict) else {"generation_parameters": written})}
        names |= {name: task.get(name) for name in _GENERATED}
    return {name: value for name, value in names.items() if value is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _counts(config: Mapping[str, Any]) -> dict[str, int]:
    told = {"original": config.get("original_num_docs"), "effective": config.get("effective_num_docs")}
    return {name: n for name, n in told.items() if isinstance(n, int) and n > 0}


def _metric_list(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The metrics of a task's configuration as lm-eval lists them, how each is made one number among it;
    of several that are calculated together each has its own entry."""
    listed = config.get("metrics") or config.get("metric") or ()
    entries = [one for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict)]
    found = []
    for one in entries:
        names = one.get("metric_name")
        for name in map(str, names if isinstance(names, list) else [] if names is None else [names]):
            told = {key: _of(one.get(key), name) for key in ("higher_is_better", "corpus_level_fn")}
            rises, how = told["higher_is_better"], told["corpus_level_fn"]
            found.append(
                {
                    "metric": name,
                    **({"aggregation": _aggregation(str(how))} if how is not None else {}),
                    **({"higher_is_better": rises} if isinstance(rises, bool) else {}),
                    "sample_level_fn": str(one.get("sample_level_fn")),
                }
            )
    return found


def _of(told: Any, name: str) -> Any:
    """What is told of one metric, where a table tells it of each."""
    return told.get(name) if isinstance(told, Mapping) else told


def _aggregation(function: str) -> str:
    """lm-eval's name of how items' values become one number; lighteval's own where it has none for it."""
    known = re.search(r"metric_type='?(weighted_perplexity|perplexity|bits_per_byte)", function)
    return known[1] if known else function


# --- details ------------------------------------------------------------------------------------


def _details_of(name: str, stamp: str, files: Iterable[Path]) -> Path | None:
    """The file with the samples of a task; its name holds the task's, as far as file systems take it."""
    wanted = _plain(f"details_{name}_{stamp}")
    return next((file for file in files if _plain(file.stem) == wanted), None)


def _plain(name: str) -> str:
    return _UNSAFE.sub("_", name)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The samples of a file of details in lm-eval's shape."""
    rows = _rows(path)
    try:
        return [_new(at, row) if "doc" in row else _old(at, row) for at, row in enumerate(rows)]
    except (
        KeyError, TypeError, ValueError, SyntaxError, AttributeError, IndexError, RecursionError, MemoryError
    ) as error:  # fmt: skip
        why = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise QevalError(f"{path} is not as lighteval writes it ({why}).", _REMEDY) from error


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of details, of the columns that are needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = reading.content(path, None)
        reading.check_fetched(path, data)
        file = pq.ParquetFile(pa.BufferReader(data))
        names = [name for name in file.schema_arrow.names if name in (*_NEW, *_OLD)]
        most = most_of(len(data))
        if too_many(file.metadata, most) or too_long(data, names, most):
            raise QevalError(f"{path} would unpack to far more than such a file holds.", _REMEDY)
        rows: list[dict[str, Any]] = file.read(names, use_threads=False).to_pylist()
    except reading.PointerError as error:
        raise QevalError(f"{path} cannot be read: {reading.told(error)}.", error.remedy) from error
    except (OSError, pa.ArrowException, RecursionError) as error:
        why = " ".join(str(error).split())[:120]
        raise QevalError(f"{path} is damaged ({why}).", _REMEDY) from error
    return rows


def _new(at: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """A sample of releases since 0.11: the document, the model's response and the metrics as tables."""
    doc, response = row["doc"], row["model_response"]
    asked = response.get("input")
    prompt = asked if isinstance(asked, str) else json.dumps(asked) if asked else ""
    given = bool(prompt)
    prompt = prompt or f"{doc.get('instruction') or ''}{doc['query']}"
    scores = [float(score) for score in response.get("logprobs") or ()]
    choices = [str(choice) for choice in doc.get("choices") or ()]
    golds = doc["gold_index"] if isinstance(doc["gold_index"], list) else [doc["gold_index"]]
    texts = [str(text) for text in response.get("text") or ()]
    scored = len(scores) == len(choices) > 1 and not texts
    answers = scores if scored else texts
    return {**_line(at, doc["query"], prompt, choices, golds, answers, row["metric"]), "given": given}


def _old(at: int, row: Mapping[str, str]) -> dict[str, Any]:
    """A sample of earlier releases, which wrote every value as Python shows it."""
    choices, golds = _value(row["choices"]), _value(row["gold_index"])
    if not choices:  # of generated texts the right answers are told instead
        choices = _value(row["gold"])
        golds = list(range(len(choices)))
    found = _value(row["predictions"])
    scores = [one[0] if isinstance(one, list | tuple) else one for one in found]
    scored = len(scores) == len(choices) > 1 and all(map(_is_number, scores))
    prompt = row["full_prompt"]
    answers = scores if scored else [str(one) for one in found]
    line = _line(at, row["example"], prompt, choices, golds, answers, _value(row["metrics"]))
    return {**line, "given": bool(prompt)}


_NO_NUMBER = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?<!\w)-?(?:nan|inf)(?!\w)""", re.DOTALL)


def _value(text: str) -> Any:
    """What Python shows as text. A number that is none has no literal: null stands for it, but in texts."""
    return ast.literal_eval(_NO_NUMBER.sub(lambda found: found.group(1) or "None", text))


def _line(
    at: int,
    query: str,
    prompt: str,
    choices: Sequence[str],
    golds: Sequence[int],
    answers: Sequence[Any],
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """A line of lm-eval's samples; `answers` are log-likelihoods of the choices, or texts."""
    scored = bool(answers) and not isinstance(answers[0], str)
    told = {name: value for name, value in metrics.items() if _is_number(value) or value is None}
    target = str(golds[0] if len(golds) == 1 else list(golds)) if scored else str([choices[g] for g in golds])
    return {
        "doc_id": at,
        "doc": {"question": query, "choices": list(choices)},
        "target": target if scored or len(golds) != 1 else str(choices[golds[0]]),
        "arguments": [[prompt, choice] for choice in choices] if scored else [[prompt, {}]],
        "resps": [[[str(score), "False"]] for score in answers] if scored else [list(answers)],
        "filtered_resps": [[str(score), "False"] for score in answers] if scored else list(answers[:1]),
        "filter": "none",
        "metrics": list(told),
        **told,
    }
