"""The toy model: a deterministic fake that lets the whole command line run in seconds without torch.

It answers invented items. What a scheme costs it is invented too, but fixed: the items are the same for
every scheme, a few answers change, and a few more are lost than gained. `toy[items=50]` sets the number
of items of a task, `toy[delay=0.1]` waits that many seconds after each task, `toy[fail=bnb4]` makes that
scheme fail. Left alone it has a tenth of the items of each MMLU subject. docs/toy.md tells users of it.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from qeval.base.errors import QevalError
from qeval.base.invented import INVENTED
from qeval.base.records import Item, Provenance, Samples, Scheme, Task
from qeval.base.sizes import MMLU_SUBJECTS, TASK_SIZES
from qeval.load.toy import Toy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHIFT = 0.01
"""How far a scheme moves the log-likelihoods of an item that it does not change, as every real one does."""
_HIGHEST = -0.001
"""No log-likelihood is above 0."""
PATH, OTHER_PATH = "toy", "toy-again"
"""The names of its two ways to answer."""
_CHOICES = 4
DEFAULT_ITEMS = 200
_SUBJECT_SHARE = 10  # so that subjects differ in size, and their mean from that of all items
# On the other path: the share of items whose two best choices change places, and how far log-likelihoods
# move, of a choice or a word, in nats.
_SWAPPED, _MOVED = 0.015, 1e-4
# The share of answers that change, and the share of right answers that are lost on top.
_DAMAGE = {
    "fp32": (0.0, 0.0),
    "fp16": (0.0, 0.0),
    "bf16": (0.004, 0.0),
    "bnb8": (0.02, 0.002),
    "bnb4": (0.07, 0.012),
    "gptq": (0.06, 0.010),
}
_OTHER_DAMAGE = (0.05, 0.008)
_PERPLEXITIES = {"wikitext", "qeval_prose"}
_ACCURACY = {"arc_challenge": 0.53, "hellaswag": 0.78, "truthfulqa_mc2": 0.39}


def leaf_tasks(tasks: Sequence[Task]) -> Iterator[Task]:
    """The tasks themselves, MMLU as its 57 subjects, and perplexities known for what they are."""
    for task in tasks:
        if task.name == "mmlu":
            for name, (_, category) in MMLU_SUBJECTS.items():
                yield replace(task, name=name, group="mmlu", category=category)
        else:
            yield replace(task, kind="perplexity") if task.name in _PERPLEXITIES else task


def available(task: Task, toy: Toy) -> int:
    """How many items the toy has for a task."""
    subject = MMLU_SUBJECTS[task.name][0] if task.name in MMLU_SUBJECTS else None
    real = subject or TASK_SIZES.get(task.name)
    if toy.items == 0 and real is not None:
        return real
    return toy.items or (subject // _SUBJECT_SHARE if subject and task.group else DEFAULT_ITEMS)


def provenance(scheme: Scheme, engine: str = PATH) -> Provenance:
    """The toy's provenance, which says that it is one."""
    return Provenance(
        model="toy",
        architecture="Toy",
        dtype="none",
        quantization={"scheme": scheme.kind, **scheme.options},
        engine=engine,
        notes=(INVENTED,),
    )


def score(task: Task, scheme: Scheme, toy: Toy, seed: int) -> tuple[Samples, tuple[Item, ...]]:
    """Answer a leaf task; the same arguments give the same answers. Raises QevalError if told to fail."""
    if toy.fail == scheme.kind:
        raise QevalError(f"The toy was told to fail for {scheme.kind}.", "Take `fail` out of toy[...].")
    time.sleep(toy.delay)
    n = min(available(task, toy), task.limit or math.inf)
    make = _perplexity if task.kind == "perplexity" else _choices
    return make(task, scheme, int(n), seed)


def by_another_path(task: Task, samples: Samples, seed: int) -> Samples:
    """The same answers as they come out on the toy's other path: nearly the same."""
    import numpy as np

    noise = _generator(task.name, seed, OTHER_PATH)
    if task.kind == "perplexity":
        moved = noise.normal(0.0, _MOVED, size=len(samples)) * samples.weight
        return replace(samples, value=samples.value + moved)
    scores: NDArray[np.float64] = np.array([list(row) for row in samples.scores]).reshape(-1, _CHOICES)
    for item in np.flatnonzero(noise.random(len(samples)) < _SWAPPED):
        second, best = np.argsort(scores[item])[-2:]
        scores[item, [best, second]] = scores[item, [second, best]]
    scores = np.minimum(scores + noise.normal(0.0, _MOVED, size=scores.shape), _HIGHEST)
    gold = samples.gold.astype(int)
    answer = scores.argmax(axis=1)
    rows = np.empty(len(samples), dtype=object)
    rows[:] = [tuple(row) for row in scores.tolist()]
    value = (answer == gold).astype(float) if task.kind == "accuracy" else _probability(scores, gold)
    return replace(samples, value=value, answer=answer.astype(np.str_), scores=rows)


def _generator(*parts: object) -> np.random.Generator:
    import numpy as np

    text = "\x1f".join(map(str, parts))
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def _damage(scheme: Scheme) -> tuple[float, float]:
    churn, loss = _DAMAGE.get(scheme.kind, _OTHER_DAMAGE)
    bits = scheme.options.get("bits", 4)
    worse = 2.0 ** (4 - int(bits)) if isinstance(bits, int) else 1.0
    return min(churn * worse, 1.0), min(loss * worse, 1.0)


def _choices(task: Task, scheme: Scheme, n: int, seed: int) -> tuple[Samples, tuple[Item, ...]]:
    import numpy as np

    items = _generator(task.name, seed)
    gold = items.integers(_CHOICES, size=n)
    scores = items.normal(-12.0, 3.0, size=(n, _CHOICES))
    right = items.random(n) < _ACCURACY.get(task.name, 0.55)
    _prefer(scores, gold, right)
    noise = _generator(task.name, seed, scheme.kind, sorted(scheme.options.items()))
    churn, loss = _damage(scheme)
    changed = noise.random(n) < churn
    scores[changed] = noise.normal(-12.0, 3.0, size=(int(changed.sum()), _CHOICES))
    _prefer(scores, gold, right, changed & (noise.integers(2, size=n) == 1))
    _prefer(scores, gold, np.zeros(n, dtype=bool), right & (noise.random(n) < loss))
    scores += _generator("shift", task.name, seed, scheme.kind, scheme.options).normal(0.0, _SHIFT, (n, 1))
    np.minimum(scores, _HIGHEST, out=scores)
    answer = scores.argmax(axis=1)
    value = (answer == gold).astype(float) if task.kind == "accuracy" else _probability(scores, gold)
    samples = _samples(task, value, np.ones(n), [str(a) for a in answer], [str(g) for g in gold], scores)
    return samples, tuple(_item(task, i, int(g)) for i, g in enumerate(gold))


def _prefer(
    scores: NDArray[np.float64],
    gold: NDArray[np.int64],
    right: NDArray[np.bool_],
    where: NDArray[np.bool_] | None = None,
) -> None:
    """Swap scores in place so that the best choice is the gold one exactly where `right` says so."""
    import numpy as np

    for i in np.arange(len(gold)) if where is None else np.flatnonzero(where):
        best = int(scores[i].argmax())
        if bool(best == gold[i]) != bool(right[i]):
            other = int(gold[i]) if right[i] else (int(gold[i]) + 1) % _CHOICES
            scores[i, [best, other]] = scores[i, [other, best]]


def _probability(scores: NDArray[np.float64], gold: NDArray[np.int64]) -> NDArray[np.float64]:
    import numpy as np

    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    chosen: NDArray[np.float64] = shares[np.arange(len(gold)), gold] / shares.sum(axis=1)
    return chosen


def _perplexity(task: Task, scheme: Scheme, n: int, seed: int) -> tuple[Samples, tuple[Item, ...]]:
    items = _generator(task.name, seed)
    words = items.integers(80, 400, size=n).astype(float)
    per_word = items.normal(2.2, 0.15, size=n)
    churn, _ = _damage(scheme)
    noise = _generator(task.name, seed, scheme.kind, sorted(scheme.options.items()))
    per_word = per_word + 0.3 * churn + noise.normal(0.0, 0.05 * churn, size=n)
    samples = _samples(task, -per_word * words, words, [""] * n, [""] * n, None)
    return samples, tuple(Item(str(i), f"Toy document {i} of {task.name}.", "", (), "") for i in range(n))


def _samples(
    task: Task,
    value: NDArray[np.float64],
    weight: NDArray[np.float64],
    answer: list[str],
    gold: list[str],
    scores: NDArray[np.float64] | None,
) -> Samples:
    import numpy as np

    n = len(value)
    rows = np.empty(n, dtype=object)
    rows[:] = [()] * n if scores is None else [tuple(row) for row in scores.tolist()]
    keys = [str(i) for i in range(n)]
    return Samples(
        key=np.array(keys, dtype=np.str_),
        doc_hash=_hashes("doc", task, keys),
        prompt_hash=_hashes(f"prompt {task.num_fewshot}", task, keys),
        target_hash=_hashes("target", task, keys),
        value=value,
        weight=weight,
        cluster=np.array([""] * n, dtype=np.str_),
        answer=np.array(answer, dtype=np.str_),
        gold=np.array(gold, dtype=np.str_),
        scores=rows,
    )


def _hashes(what: str, task: Task, keys: Sequence[str]) -> NDArray[np.str_]:
    import numpy as np

    texts = (f"{what} {task.name} {key}" for key in keys)
    return np.array([hashlib.sha256(text.encode()).hexdigest() for text in texts], dtype=np.str_)


def _item(task: Task, number: int, gold: int) -> Item:
    question = f"Toy question {number} of {task.name}: which word is right?"
    words = tuple(f"word {number * _CHOICES + choice}" for choice in range(_CHOICES))
    return Item(str(number), f"{question}\nAnswer:", question, words, str(gold))
