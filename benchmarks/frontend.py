"""How long the questions of a suite take to build, tokenise, read back from the cache, and plan.

    python benchmarks/frontend.py --tokenizer DIR --datasets-dir DIR [--full-hellaswag] [--lm-eval N]

Runs `prepare` of qeval.score.harness.door on leaderboard-v1 twice, each in a process of its own, with an
empty and a filled cache, and prints seconds and counts. `--full-hellaswag` stretches a mirror's sample of
HellaSwag to the real numbers of rows (10 042 and 39 905) by repeating rows with a word changed. `--lm-eval N`
also times lm-eval's own building and pairwise tokenising on N documents of each task, and says what that
means for all.
Set RAYON_NUM_THREADS=1 or use taskset for the figures of one core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import groupby
from pathlib import Path
from typing import Any

SUITE = (("arc_challenge", 25), ("hellaswag", 10), ("mmlu", 5), ("truthfulqa_mc2", 0), ("wikitext", 0))
ROWS = {"validation": 10042, "train": 39905}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        mirror = Path(options.datasets_dir).resolve()
        if options.full_hellaswag:
            mirror = stretched(mirror, Path(folder) / "mirror")
        for label in ("first time", "second time"):
            print(label, json.dumps(_apart("once", options.tokenizer, mirror, Path(folder) / "cache")))
        if options.lm_eval:
            row = _apart("lm_eval", options.tokenizer, mirror, str(options.lm_eval))
            print(f"lm-eval on {options.lm_eval} documents a task", json.dumps(row))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--datasets-dir", required=True)
    parser.add_argument("--full-hellaswag", action="store_true")
    parser.add_argument("--lm-eval", type=int, default=0)
    return parser.parse_args()


def _apart(what: str, *words: object) -> dict[str, Any]:
    """`what` of this file in a fresh process: imports and caches in memory count for each."""
    command = [sys.executable, __file__, f"--child-{what}", *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def stretched(mirror: Path, folder: Path) -> Path:
    """A mirror like `mirror` in which HellaSwag has its real numbers of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for place in (path for path in mirror.glob("*/*") if path.is_dir()):
        target = folder / place.relative_to(mirror)
        target.parent.mkdir(parents=True, exist_ok=True)
        if place.name != "hellaswag":
            target.symlink_to(place)
            continue
        (target / "data").mkdir(parents=True)
        (target / "README.md").write_text((place / "README.md").read_text())
        for split, count in ROWS.items():
            rows = pq.read_table(place / "data" / f"{split}.parquet").to_pylist()
            more = [_changed(rows[at % len(rows)], at // len(rows)) for at in range(count)]
            pq.write_table(pa.Table.from_pylist(more), target / "data" / f"{split}.parquet")
    return folder


def _changed(row: dict[str, Any], time_round: int) -> dict[str, Any]:
    if not time_round:
        return row
    endings = [f"{ending} {time_round}" for ending in row["endings"]]
    return {**row, "ctx_a": f"{time_round} {row['ctx_a']}", "endings": endings}


def once(tokenizer: str, mirror: str, cache: str) -> dict[str, Any]:
    start = time.perf_counter()
    import datasets
    import torch  # noqa: F401 - the scoring process has it anyway
    from lm_eval.models import huggingface  # noqa: F401 - as above
    from transformers import AutoTokenizer

    from qeval.base.records import Task
    from qeval.score.engine import tree
    from qeval.score.harness import door

    datasets.disable_progress_bars()
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    imported = time.perf_counter()
    cpu = time.process_time()
    tasks = [Task(name, "", num_fewshot=shots) for name, shots in SUITE]
    parts = door.prepare(tasks, loaded, max_length=2048, datasets_dir=Path(mirror), cache_dir=Path(cache))
    done, prepared = time.perf_counter(), time.process_time()
    for _, unit in groupby(parts, key=lambda part: part.task.group or part.task.name):
        tree.pack([request for part in unit for request in part.requests], 4096)
    return {
        "imports": round(imported - start, 1),
        "prepare": round(done - imported, 1),
        "cpu": round(prepared - cpu, 1),
        "plan": round(time.perf_counter() - done, 1),
        "requests": sum(len(part.requests) for part in parts),
        "tokens": sum(len(request.tokens) for part in parts for request in part.requests),
        "MB on disk": round(sum(file.stat().st_size for file in Path(cache).rglob("*.npz")) / 1e6),
    }


def lm_eval(tokenizer: str, mirror: str, count: str) -> dict[str, Any]:
    """lm-eval's own building and tokenising, in seconds for all documents of the suite."""
    import random

    from transformers import AutoTokenizer

    from qeval.base.records import Task
    from qeval.score.harness import leaves, prompts, sources, tokens
    from qeval.score.harness.tame import replaced

    encoder = tokens.encoder(AutoTokenizer.from_pretrained(tokenizer))
    seconds = {"building": 0.0, "tokenising": 0.0}
    requests = 0
    for name, shots in SUITE[:-1]:
        every = leaves.expand([Task(name, "", num_fewshot=shots, limit=int(count))], None, None)
        sampled = random.Random(0).sample(every, min(3, len(every)))  # noqa: S311 - a sample of subjects
        for leaf in sampled:
            import datasets

            with replaced(datasets, "load_dataset", sources.opener(leaf, Path(mirror))):
                task = prompts._loaded(leaf)  # noqa: SLF001 - measured without what qeval does about it
                start = time.perf_counter()
                asked = prompts._instances(task, leaf.task, None, 1234)  # noqa: SLF001 - as above
                built = time.perf_counter()
            for instance in asked:
                encoder.hflm._encode_pair(*instance.args)  # noqa: SLF001 - lm-eval's own
            scale = len(every) / len(sampled) * len(task.eval_docs) / min(int(count), len(task.eval_docs))
            seconds["building"] += scale * (built - start)
            seconds["tokenising"] += scale * (time.perf_counter() - built)
            requests += round(scale * len(asked))
    return {**{key: round(value) for key, value in seconds.items()}, "requests": requests}


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].startswith("--child-"):
        child = {"--child-once": once, "--child-lm_eval": lm_eval}[sys.argv[1]]
        print(json.dumps(child(*sys.argv[2:])))
    else:
        main()
