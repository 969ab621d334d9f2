"""Score tasks of several shapes with every architecture of transformers, and compare each answer with the
model's own forward pass: `python benchmarks/architectures.py [--seed N] [NAME ...]`.

With neither, all of them are scored and docs/architectures.md is written; else the screen alone is told.
Each model is tiny and random. Its matrices are multiplied until the farthest token that it can see matters.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
import traceback
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

import zoo

from qeval.base.packing import Packing
from qeval.base.records import Provenance, Settings
from qeval.score.account import Account
from qeval.score.engine.requests import Answer, TokenRequest
from qeval.score.feeding import Feeder, Place, SteppedDown

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
QUERIES_AND_KEYS = (
    *("q_proj", "k_proj", "query", "key", "q_a_proj", "q_b_proj", "router", "gate.weight", "wq", "wk"),
)
BETWEEN = ("mlp", "expert", "feed_forward", "ffn", "fc1", "fc2", "moe")
FACTORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""By how much the matrices are multiplied, the least that is enough."""
SPARED = {
    "all": ("A_log",),
    "not queries and keys": ("A_log", *QUERIES_AND_KEYS),
    "values and ends": ("A_log", *QUERIES_AND_KEYS, *BETWEEN),
}
"""What is multiplied, and the names that are not: the rates at which states decay; then what decides where
attention looks, which large factors make look at one token alone; then what stands between layers of
attention, so that what these hand on from one to the next is not drowned."""
MATTERS = 0.1
"""How far the farthest token must move a log-probability, in nats."""
ALLOWED = 1e-4
"""How far an answer may be from the model's own, in nats a token."""
SECONDS = 5
"""What a model may take to build."""


@dataclass(frozen=True)
class Found:
    """What became of an architecture. what, factor: which matrices were multiplied, and by how
    much. back: how many tokens
    back the farthest lies that it sees, of `of`; moves: by how many nats that one moves the last token's
    log-probability. path, rung: how it was scored. off: its largest distance from the model's own forward
    pass, nats a token. seconds: for all tasks, the self-check included. why: what kept it off the tree."""

    name: str
    model: str
    what: str
    factor: int
    back: int
    of: int
    moves: float
    path: str
    rung: str
    off: float
    seconds: float
    why: str

    @property
    def counts(self) -> bool:
        """Whether a wrong mask would have shown."""
        return self.moves > MATTERS


def tasks() -> list[list[TokenRequest]]:
    """Four tasks: short texts that share nothing, choices after common examples, long contexts that several
    requests and beginnings share, and long texts of which every token is scored."""
    rng = np.random.default_rng(7)

    def words(count: int) -> list[int]:
        return [int(word) for word in rng.integers(3, zoo.VOCABULARY, count)]

    def request(tokens: list[int], scored: int) -> TokenRequest:
        return TokenRequest(np.array(tokens, np.int32), scored)

    short = [request(words(length), 1 + length // 4) for length in (3, 9, 4, 6, 5, 7)]
    shots = words(20)
    contexts = [shots + words(int(rng.integers(3, 12))) for _ in range(5)]
    choices = [request(context + words(n), n) for context in contexts for n in (1, 3, 2, 4)]
    shared = words(60)
    contexts = [shared[:cut] + words(88 - cut) for cut in (60, 60, 33)]
    far = [request(context + words(n), n) for context in contexts for n in (2, 5, 1)]
    whole = words(115)
    rolling = [request(whole[:108], 107), request(whole[30:], 7), request(words(70), 69)]
    return [short, choices, far, rolling]


def built(name: str, seed: int = 0) -> Any:
    """The random model. Raises whatever transformers raises, TimeoutError after more than SECONDS."""
    import transformers

    with warnings.catch_warnings(action="ignore"):
        kind = type(zoo.configuration(name))
        _ = transformers.AutoModelForCausalLM._model_mapping[kind]  # noqa: SLF001  # its file takes longer
    started = time.perf_counter()
    model = zoo.model(name, seed)
    if time.perf_counter() - started > SECONDS:
        raise TimeoutError(f"takes longer than {SECONDS} s to build")
    return model


def table(model: Any, tokens: np.ndarray) -> Any:
    """Log-probabilities (t, v) after each of tokens (t,), by the model's own forward pass."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(tokens.astype(np.int64))[None]).logits[0]
    return torch.log_softmax(logits.float(), -1)


def alone(model: Any, request: TokenRequest) -> Answer:
    """The answer to a request by itself, with nothing of qeval's engine."""
    import torch

    rows = table(model, request.tokens[:-1])[-request.n_scored :]
    target = torch.from_numpy(request.tokens[-request.n_scored :].astype(np.int64))
    found = rows.gather(1, target[:, None]).double().sum()
    return Answer(float(found), bool((rows.argmax(-1) == target).all()))


def farthest(model: Any, request: TokenRequest) -> int:
    """The first place of a request whose embedding the last token's log-probability depends on at all."""
    import torch

    kept: list[Any] = []

    def keep(_module: Any, _args: Any, output: Any) -> Any:
        kept.append(output.detach().requires_grad_())
        return kept[-1] * 1.0  # some models multiply their embeddings in place

    hook = model.get_input_embeddings().register_forward_hook(keep)
    try:
        with torch.enable_grad():
            tokens = torch.from_numpy(request.tokens.astype(np.int64))
            logits = model(input_ids=tokens[None, :-1], use_cache=False).logits[0, -1]
            torch.log_softmax(logits.float(), -1)[tokens[-1]].backward()
    finally:
        hook.remove()
    seen = kept[0].grad.flatten(0, -2).abs().amax(-1) > 0
    return int(seen.nonzero()[0, 0])


def moves(model: Any, request: TokenRequest, place: int) -> float:
    """How many nats the last token's log-probability moves with the token at a place, the most of sixteen."""
    fed, last = request.tokens[:-1], int(request.tokens[-1])
    before = float(table(model, fed)[-1, last])
    found = []
    for step in range(1, 17):
        other = fed.copy()
        other[place] = 3 + (other[place] + 5 * step) % (zoo.VOCABULARY - 3)
        found.append(abs(float(table(model, other)[-1, last]) - before))
    return max(found)


def multiply(model: Any, factor: float, spared: Sequence[str]) -> None:
    """Multiply every matrix, but for those whose names hold one of `spared`."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and not any(word in name for word in spared):
                weight.mul_(factor)


def made_sensitive(model: Any, request: TokenRequest) -> tuple[tuple[str, int, float], int]:
    """Multiply the matrices until the farthest token matters: what was multiplied, by how much, and by how
    many nats that moves the log-probability (not enough, where nothing is enough); and the token's place."""
    place, best = farthest(model, request), ("", 1, 0.0)
    first = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for what, spared in SPARED.items():
        for factor in FACTORS:
            restore(model, first)
            multiply(model, factor, spared)
            found = moves(model, request, place)
            if found > best[2]:
                best = (what, factor, found)
            if found > MATTERS:
                return (what, factor, found), place
    restore(model, first)
    multiply(model, best[1], SPARED.get(best[0], ()))
    return best, place


def restore(model: Any, weights: dict[str, Any]) -> None:
    """Give a model's parameters the values that they had."""
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weights[name])


def scored(model: Any, asked: Sequence[Sequence[TokenRequest]]) -> tuple[Feeder, list[list[Answer]]]:
    """Every task's answers, by the engine as a session uses it."""
    account = Account(lambda _: None, Provenance("tiny"))
    job: Any = SimpleNamespace(settings=Settings(), log="the log")
    packing = Packing("cpu", 1, budget=256, batch_size=4, shard=4)
    cells: Any = SimpleNamespace(packing=packing, book=lambda *_: None)
    feeder = Feeder(job, cells, account, model, packing, mates=False)
    feeder.sample = [request for task in asked for request in task]
    return feeder, [answers(feeder, task) for task in asked]


def answers(feeder: Feeder, task: Sequence[TokenRequest]) -> list[Answer]:
    """A task's answers, by one path from beginning to end."""
    unit: Any = [SimpleNamespace(task=SimpleNamespace(name="tiny", group=""), requests=task)]
    places = [Place(0, i) for i in range(len(task))]
    while True:
        try:
            found = {place.request: answer for place, answer in feeder.answered(unit, places, [True])}
        except SteppedDown:
            continue
        return [found[i] for i in range(len(task))]


def examined(name: str, seed: int = 0) -> Found:
    """Build, scale and score an architecture."""
    model, asked = built(name, seed), tasks()
    probe = asked[2][1]
    (what, factor, moved), place = made_sensitive(model, probe)
    started = time.perf_counter()
    feeder, got = scored(model, asked)
    seconds = time.perf_counter() - started
    off = max(
        abs(answer.loglikelihood - alone(model, request).loglikelihood) / request.n_scored
        for task, given in zip(asked, got, strict=True)
        for request, answer in zip(task, given, strict=True)
    )
    engine, length = feeder.opened(), len(probe.tokens) - 1
    why = " ".join((engine.note, *feeder.account.provenance.notes[1:], *engine.warnings))
    return Found(
        name,
        type(model).__name__,
        what,
        factor,
        length - place,
        length,
        moved,
        engine.path,
        engine.rung,
        off,
        seconds,
        why,
    )


PATHS = {
    "tree": "the token tree",
    "kv": "the shared KV cache",
    "head": "whole sequences, the head where it is needed",
    "plain": "plain batches",
}
INTRO = """# Architectures

What each of transformers' causal language models is scored by, and how far that is from the model itself.
`python benchmarks/architectures.py` wrote this page with transformers {transformers} and torch {torch}, in
float32 on a CPU; `tests/score/engine/test_architectures.py` does it again and compares.

Each model is tiny and random: about four layers, a hidden size of 32, windows of 7 tokens where its layers
have windows, and all kinds of layers that its real ones have. It is asked four tasks of different shapes, as
a run asks: a few short texts that share nothing come first, then choices after common examples, then long
contexts that requests share in whole or in part, then long texts of which every token is scored. Every answer
is compared with the model's own forward pass over that request alone. *Off* is the largest distance, in nats
a token; up to {allowed:.0e} is allowed. *Seconds* are those of all four tasks, the self-check included.

A wrong mask would not show in a model to which distant tokens mean nothing. So its matrices are multiplied,
by the least of {factors} that is enough, until another token in the farthest
place that the model sees at all (*sees back*, of {length} tokens) moves the last token's log-probability by
more than {matters} nat. Where no factor is enough for all matrices, those of queries, keys and routers are
spared (*but queries*), and then the layers between attention too (*values*). What no factor makes sensitive
does not count. Models all of whose layers have windows have two layers, Cohere's logits are not scaled, and
models of the BERT family are told that they are decoders, as a causal model must be. Attention that chooses
the tokens that it looks at chooses 16 or 32, fewer than the long tasks hold.

The weights are those of one seed, and a model may be right with it by luck; `--seed N` takes others.

**{counted} architectures count, {tree} of them on the token tree;
the largest distance is {off:.1e} nat a token.**
"""
WHAT = {"all": "", "not queries and keys": " but queries", "values and ends": " values", "": ""}


def page(found: Sequence[Found], left: dict[str, str]) -> str:
    """The page of all architectures."""
    import torch
    import transformers

    good = [one for one in found if one.counts]
    intro = INTRO.format(
        transformers=transformers.__version__,
        torch=torch.__version__.split("+")[0],
        allowed=ALLOWED,
        factors=", ".join(map(str, FACTORS)),
        length=found[0].of,
        matters=MATTERS,
        counted=len(good),
        tree=sum(one.path == "tree" for one in good),
        off=max(one.off for one in good),
    )
    parts = [intro]
    for path, words in PATHS.items():
        rows = [one for one in good if one.path == path]
        if rows:
            parts.append(f"## On {words}: {len(rows)}\n\n{table_of(rows)}\n")
            if path != "tree":
                parts.append(reasons(rows))
    rest = [one for one in found if not one.counts]
    if rest:
        parts.append(f"## Scored, but not counted: {len(rest)}\n\n{table_of(rest)}\n")
    lines = "\n".join(f"- `{name}`: {why}." for name, why in sorted(left.items()))
    parts.append(f"## Not built: {len(left)}\n\n{lines}\n")
    return "\n".join(parts)


def table_of(rows: Sequence[Found]) -> str:
    """Rows of architectures as a Markdown table."""
    lines = [
        f"| `{one.name}` | {one.model} | {one.rung} | {one.off:.1e} | {one.back} | {one.moves:.2f}"
        f" | {one.factor}{WHAT[one.what]} | {one.seconds:.1f} |"
        for one in rows
    ]
    head = "| name | class | path | off | sees back | moves, nat | matrices times | seconds |"
    return "\n".join([head, "|---|---|---|--:|--:|--:|---|--:|", *lines])


def reasons(rows: Sequence[Found]) -> str:
    """Why each of these is not on the tree."""
    found = defaultdict(list)
    for one in rows:
        found[against_tree(one.why)].append(f"`{one.name}`")
    return "\n".join(f"- {', '.join(names)}: {why}." for why, names in found.items()) + "\n"


def against_tree(note: str) -> str:
    """What the self-check's note says against the tree with a dense mask."""
    match = re.search(r"Token tree with a dense mask: (.*?)(?:; Shared KV cache: |\)\.)", note)
    why = match[1] if match else note
    why = re.sub(r"off by up to [\d.e+-]+ nat per token, plain batches by .*", "its numbers are others", why)
    return why.rstrip(" :.")


def main() -> None:
    import torch
    import transformers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    names, seed = asked.names, asked.seed
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    found, left = [], dict(zoo.LEFT_OUT)
    for name in names or [name for name in zoo.kinds() if name not in left]:
        try:
            found.append(examined(name, seed))
        except Exception as error:  # noqa: BLE001  # the page says so, the test that reads it fails
            traceback.print_exc()
            left[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        print(found[-1] if name not in left else f"{name}: {left[name]}", flush=True)
    if not names and seed == 0:
        PAGE.write_text(page(found, left), "utf-8")


if __name__ == "__main__":
    main()
