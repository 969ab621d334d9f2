"""Simulated candidates through all of `qeval import` and `qeval gate`, as files that lm-eval would write.

`coverage_simulation.py --through-gate 200` runs it: each trial draws a candidate exactly at the limit as
`coverage_hard.py` does, writes it and its baseline as lm-eval's results and samples, imports them by the
command line and asks the gate for its verdict, which must be that of the functions that were simulated.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage_hard as hard
import numpy as np
from click.testing import CliRunner
from coverage_hard import Draw, Drawn

from qeval.cli.main import main

STAMP = "2026-01-02T03-04-05.678901"
NAMES = ("fp16", "int4")
VERDICTS = {0: "PASS", 3: "FAIL", 4: "INCONCLUSIVE"}


@dataclass(frozen=True)
class Through:
    """A setting: what is drawn, and whether its texts are too few for any verdict."""

    name: str
    items: str
    draw: Draw
    few: bool = False


def settings() -> Iterator[Through]:
    """Those in which a few items, documents, texts or groups carry all, from the least sizes on."""
    yield from _texts()
    yield from _scores()
    yield from _documents()
    for name, losing, margin in (("7 of 2 to 30", 3, 0.05), ("3 of 2, 10 of 30", 3, 0.05)):
        draw = hard.small_groups(hard.GROUPS[name], losing, margin, 0.14)
        yield Through(f"the smallest {losing} groups carry the loss, 14% flips, limit 5%", name, draw)


def _texts() -> Iterator[Through]:
    for name in ("204 in 67", "100 in 20", "500 in 100"):
        sizes = hard.SHAPES[name]
        for together in (0.5, 1.0):
            draw = hard.shared_texts(sizes, together, 0.2, 0.3)
            yield Through(f"texts, {together:.0%} as one, 30% flips, limit 20%", name, draw)
        yield Through("texts, 100% as one, at most 10% flips", name, hard.shared_flips(sizes, 1.0, 0.1))
    few = hard.shared_texts(np.full(19, 5), 1.0, 0.2, 0.3)
    yield Through("texts, 100% as one, 30% flips, limit 20%", "95 in 19", few, few=True)


def _scores() -> Iterator[Through]:
    for n, margin, times in (
        (20, 0.2, 1.2),
        (100, 0.1, 1.2),
        (100, 0.1, 3),
        (300, 0.1, 1.2),
        (817, 0.02, 1.2),
    ):
        draw = hard.lost_whole(n, margin, times, 0.1)
        yield Through(f"mc2, {times:g} limits lost whole, limit {margin:.0%}", f"{n}", draw)


def _documents() -> Iterator[Through]:
    for name in ("20 equal", "1 long, 19 short", "wikitext's 62"):
        words = 100 * hard.DOCUMENTS[name] if name != "wikitext's 62" else hard.PAGES
        for times, noise in ((3, 0.05), (3, 0.5)):
            draw = hard.bad_documents(words, times / len(words), noise)
            yield Through(f"perplexity, {times} / n documents bad, noise {noise:g} limits", name, draw)


# --- files --------------------------------------------------------------------------------------


def write(folder: Path, drawn: Drawn) -> None:
    """Both variants as `lm_eval --log_samples` leaves them."""
    tasks = _tasks(drawn)
    for name, values in zip(NAMES, (drawn.baseline, drawn.candidate), strict=True):
        place = folder / name
        place.mkdir()
        lines = {task: [_line(drawn, int(at), values, task) for at in items] for task, items in tasks.items()}
        for task, some in lines.items():
            text = "".join(json.dumps(line) + "\n" for line in some)
            (place / f"samples_{task}_{STAMP}.jsonl").write_text(text)
        (place / f"results_{STAMP}.json").write_text(json.dumps(_results(drawn, name, lines)))


def _tasks(drawn: Drawn) -> dict[str, np.ndarray]:
    """The items of each task: one task, or a task a group."""
    if drawn.strata is None:
        return {"task": np.arange(len(drawn.baseline))}
    return {f"group_{k}": np.flatnonzero(drawn.strata == k) for k in range(int(drawn.strata.max()) + 1)}


def _line(drawn: Drawn, at: int, values: np.ndarray, task: str) -> dict[str, Any]:
    value, text = float(values[at]), at if drawn.clusters is None else int(drawn.clusters[at])
    asked = f"A question of number {at}?"
    line = {
        "doc_id": at,
        "doc": {"passage": f"Text {text}.", "question": asked},
        "target": "0",
        "filter": "none",
        "doc_hash": f"d{at}",
        "prompt_hash": f"p{at}",
        "target_hash": "t",
    }
    if drawn.weights is not None:
        said = {"word_perplexity": [value, float(drawn.weights[at])], "metrics": ["word_perplexity"]}
        request = {"arguments": {"gen_args_0": {"arg_0": f"Page {at} {task}"}}, "resps": [[str(value)]]}
        return {**line, **request, "filtered_resps": [str(value)], **said}
    other = -2.0 if value > 0 else -0.5  # the first is right, and chosen where the item counts
    scores = [[str(-1.0), "False"], [str(other), "False"]]
    request = {f"gen_args_{i}": {"arg_0": asked, "arg_1": choice} for i, choice in enumerate((" no", " yes"))}
    resps = {"resps": [[score] for score in scores], "filtered_resps": scores}
    return {**line, "arguments": request, **resps, "metrics": ["acc"], "acc": value}


def _results(drawn: Drawn, name: str, lines: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    rolling = drawn.weights is not None
    metric = "word_perplexity" if rolling else "acc"
    config = {"output_type": "loglikelihood_rolling" if rolling else "multiple_choice", "num_fewshot": 0}
    return {
        "results": {task: {f"{metric},none": _mean(some, metric)} for task, some in lines.items()},
        "group_subtasks": {} if drawn.strata is None else {"group": list(lines)},
        "configs": {task: {"task": task, "dataset_path": "own/data", **config} for task in lines},
        "versions": dict.fromkeys(lines, 1.0),
        "n-shot": dict.fromkeys(lines, 0),
        "n-samples": {task: {"original": len(some), "effective": len(some)} for task, some in lines.items()},
        "config": {"model": "hf", "model_args": {"pretrained": "own/tiny", "dtype": name}, "limit": None},
        "date": 1767323045.0,
        "lm_eval_version": "0.4.13",
        "model_name": "own/tiny",
    }


def _mean(lines: list[dict[str, Any]], metric: str) -> float:
    values = [line[metric] for line in lines]
    if metric == "acc":
        return math.fsum(values) / len(values)
    total, weight = (math.fsum(column) for column in zip(*values, strict=True))
    return math.exp(-total / weight)


# --- verdicts -----------------------------------------------------------------------------------


def verdict(drawn: Drawn) -> str:
    """What the gate says of a candidate, by way of files and the command line."""
    with tempfile.TemporaryDirectory() as folder:
        logged, runs = Path(folder) / "logged", Path(folder) / "runs"
        logged.mkdir()
        write(logged, drawn)
        _call("import", logged, "--baseline", "tiny[dtype=fp16]", "--runs-dir", runs)
        policy = Path(folder) / "policy.toml"
        policy.write_text(_policy(drawn))
        code = _call("gate", "--policy", policy, "--runs-dir", runs, codes=tuple(VERDICTS))
    return VERDICTS[code]


def _policy(drawn: Drawn) -> str:
    limit = f"max_drop = {100 * drawn.margin!r}"
    if drawn.flips:
        limit = f"max_flips = {drawn.margin!r}"
    if drawn.weights is not None:
        limit = f"max_ppl_ratio = {math.exp(drawn.margin)!r}"
    name = "task" if drawn.strata is None else "group_macro"
    return f'[gate]\nallow_identical = true\n[[rule]]\ntasks = "{name}"\n{limit}\n'


def _call(*words: object, codes: tuple[int, ...] = (0,)) -> int:
    result = CliRunner().invoke(main, [str(word) for word in words])
    if result.exit_code not in codes:
        raise RuntimeError(f"qeval {' '.join(map(str, words))}: {result.output}") from result.exception
    return int(result.exit_code)


@dataclass(frozen=True)
class Judged:
    """How often the gate gave each verdict in so many trials, and how often another than the functions do."""

    setting: Through
    counts: Counter[str]
    unlike: int

    @property
    def trials(self) -> int:
        """How many candidates were judged."""
        return sum(self.counts.values())

    @property
    def rate(self) -> float:
        """The share of wrong verdicts: of PASS, or of any where nothing can be known."""
        wrong = self.trials - self.counts["INCONCLUSIVE"] if self.setting.few else self.counts["PASS"]
        return wrong / self.trials

    @property
    def holds(self) -> bool:
        """Whether the promise is kept within three standard errors, and the functions said the same."""
        allowed = 0.0 if self.setting.few else 0.05 + 3 * math.sqrt(0.05 * 0.95 / self.trials)
        return self.rate <= allowed and not self.unlike


def judge(setting: Through, trials: int, seed: int) -> Judged:
    """Every trial draws once; the gate and the functions must agree."""
    random = np.random.default_rng([seed, *f"{setting.name}, {setting.items}".encode()])
    counts: Counter[str] = Counter()
    unlike = 0
    for _ in range(trials):
        drawn = setting.draw(random)
        found = verdict(drawn)
        counts[found] += 1
        unlike += (found == "PASS") != hard.passes(drawn)
    return Judged(setting, counts, unlike)


def table(found: list[Judged]) -> Iterator[str]:
    """The verdicts as a table."""
    yield f"| {found[0].trials} candidates through import and gate | items | PASS | undecided | FAIL |"
    yield "|---|---|---:|---:|---:|"
    for one in found:
        shares = [one.counts[name] / one.trials for name in ("PASS", "INCONCLUSIVE", "FAIL")]
        error = 100 * math.sqrt(shares[0] * (1 - shares[0]) / one.trials)
        passed = f"{shares[0]:.1%} ± {error:.1f}" if error else f"{shares[0]:.1%}"
        passed = passed if one.holds else f"**{passed}**"
        yield f"| {one.setting.name} | {one.setting.items} | {passed} | {shares[1]:.1%} | {shares[2]:.1%} |"
