"""The self-check: a rung of the ladder is used only where it gives the numbers of one-by-one scoring."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.base.errors import QevalError
from qeval.score.engine import attention, memory
from qeval.score.engine.sample import proved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from qeval.score.engine.engine import Engine
    from qeval.score.engine.requests import TokenRequest

FLOOR = {"float64": 1e-8, "float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}
"""Differences of a token's log-probability (root mean square, nats) that rounding in each dtype explains."""
TIMES_NOISE = 3.0
"""How much further from one-by-one scoring than a padded batch a rung may be."""
TIMES_ROUNDING = 1.5
"""How much further than attention written out in full, in 16 bits: some GPUs give batches of any size the
same numbers to the last digit, and other right kernels others."""
TIMES_LARGEST = 10.0
"""How much further than the root mean square the largest difference may be."""
MOST_ROUNDING = 5.0
"""The most of that, in times the dtype's floor: beyond it, attention written out is another attention."""

CEILING = {"float64": 1e-6, "float32": 2e-3, "float16": 5e-2, "bfloat16": 1e-1}
"""What no noise excuses, in the same unit: beyond it the numbers of a model are a matter of its batches."""

_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")
"""Where the exceptions of compilers are defined."""
_NOT_MADE = ("not implemented for", "NYI")
"""What torch's operators and FlexAttention say of a dtype or a shape that they do not do yet."""
_LONGEST_REASON = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A rung to try: what to call it, and how to make its engine (may raise UnsupportedError)."""

    name: str
    make: Callable[[], Engine]


def climb(
    candidates: Sequence[Candidate],
    reference: Engine,
    batched: Engine,
    requests: Sequence[TokenRequest],
    few: int | None = None,
    *,
    mates: bool = False,
    sample: Sequence[TokenRequest] = (),
) -> Engine:
    """The engine of the first candidate that agrees with `reference` on `requests`, which were chosen of
    `sample`; its note says why.

    reference: plain, one by one. batched: plain, several at once: how far it is from the reference, on the
    first `few` requests, is the noise that no one can avoid. The last candidate is plain itself and is not
    checked; where its batches move numbers beyond CEILING it is made to take sequences one by one, with a
    warning. `mates`: the weights' own layers round the activations of a batch together, so that noise is
    theirs, has no ceiling, and is told.
    """
    measure = _measure(reference, batched, requests, few, mates=mates)
    refused: list[str] = []
    failures: list[str] = []
    for place, candidate in enumerate(candidates[:-1]):
        engine, verdict = _tried(candidate, measure, failures)
        if engine is not None:
            below = tuple(other.name for other in candidates[place + 1 :])
            return _known(_noted(engine, candidate.name, verdict, refused, failures), measure, sample, below)
        refused.append(f"{candidate.name}: {verdict}")
        log.info("Self-check: %s: %s", candidate.name, verdict)
    last = candidates[-1].make()
    verdict = "as lm-eval does it"
    if not measure.mates and _rms(measure.noise) > CEILING.get(measure.dtype, CEILING["bfloat16"]):
        last.batch_size, verdict = 1, "one by one"
    return _known(_noted(last, candidates[-1].name, verdict, refused, failures), measure, sample, ())


def _known(
    engine: Engine, measure: _Measure, sample: Sequence[TokenRequest], below: tuple[str, ...]
) -> Engine:
    """The engine, which knows what was found out beside its path."""
    engine.below, engine.tolerance, engine.checked = below, measure.allowed, proved(measure.requests, sample)
    loose = _rms(measure.noise) > CEILING.get(measure.dtype, CEILING["bfloat16"])
    moved = (
        f"what else is in a batch moves a token's log-probability by up to {_largest(measure.noise):.1e} nat"
    )
    if measure.mates and loose:
        fed = "one token tree" if engine.path == "tree" else f"batches of {engine.batch_size}"
        engine.warnings = (f"Its layers round activations together, so {moved}; it was scored in {fed}.",)
    elif loose:
        engine.warnings = (f"The path in use was checked all the same, but {moved}.",)
        if engine.path == "plain":
            engine.warnings = (f"It was scored one by one, for {moved}.",)
    return engine


def probe(
    engine: Engine, reference: Engine, requests: Sequence[TokenRequest], sample: Sequence[TokenRequest] = ()
) -> str | None:
    """Why an engine must not score a sample that goes further than those of its check, by the requests chosen
    of it; None where it may."""
    try:
        far = _difference(_values(engine, requests), _values(reference, requests))
    except Exception as error:  # noqa: BLE001  # whatever it is, the next rung is tried
        memory.refuse_broken(error)
        return known_refusal(error, reference.lm.model) or _in_a_line(error)
    if engine.tolerance is None or _within(far, engine.tolerance):
        engine.checked = engine.checked.and_(proved(requests, sample))
        return None
    return f"off by up to {_largest(far):.1e} nat per token"


def distance(
    got: list[NDArray[np.float32]], reference: Engine, batched: Engine, requests: Sequence[TokenRequest]
) -> str | None:
    """How far log-probabilities that were found otherwise are from those of `reference`, in words; None where
    rounding explains it, as `climb` has it."""
    measure = _measure(reference, batched, requests, None)
    far = _difference(got, measure.want)
    if _within(far, measure.allowed):
        return None
    return f"off by up to {_largest(far):.1e} nat per token, plain batches by {_largest(measure.noise):.1e}"


@dataclass(frozen=True, eq=False)
class _Measure:
    """What candidates are held against: the requests, their log-probabilities one by one (`want`), how far
    batches are from those (`noise`, nats), attention written out in full (`_rounding`), and what follows
    from it all: how far a candidate may be (`allowed`, see `allowance`)."""

    model: Any
    dtype: str
    requests: Sequence[TokenRequest]
    want: list[NDArray[np.float32]]
    noise: NDArray[np.float64]
    allowed: float
    mates: bool


def _measure(
    reference: Engine,
    batched: Engine,
    requests: Sequence[TokenRequest],
    few: int | None,
    *,
    mates: bool = False,
) -> _Measure:
    dtype = str(reference.lm.dtype).removeprefix("torch.")
    some, want = _fitting(reference, requests[:few])
    if not some:
        raise memory.TooLongError(min(len(request.tokens) for request in requests[:few]))
    noise = _difference(_values(batched, some), want)
    rounding = _rounding(reference, some, want, dtype)
    more, wanted = _fitting(reference, requests[len(requests[:few]) :])
    known, want = [*some, *more], [*want, *wanted]
    allowed = allowance(noise, dtype, rounding, bounded=not mates)
    return _Measure(reference.lm.model, dtype, known, want, noise, allowed, mates)


def _fitting(
    reference: Engine, requests: Sequence[TokenRequest]
) -> tuple[list[TokenRequest], list[NDArray[np.float32]]]:
    """The requests that fit in memory one by one, logits of all tokens included, and what they gave."""
    known, found = [], []
    for request in requests:
        try:
            found += _values(reference, [request])
        except memory.TooLongError:
            log.info("Self-check: a request of %d tokens does not fit in memory.", len(request.tokens))
        else:
            known.append(request)
    return known, found


def _tried(candidate: Candidate, measure: _Measure, failures: list[str]) -> tuple[Engine | None, str]:
    """The candidate's engine and its agreement in words, or None and the reason against it.

    What is no known refusal is a bug. The next rung is right all the same, but slower, so it goes to
    `failures` in a sentence and to standard error (a worker's log) with its traceback.
    """
    try:
        engine = candidate.make()
        got = _difference(_values(engine, measure.requests), measure.want)
    except Exception as error:  # noqa: BLE001  # whatever it is, the next rung is tried
        memory.refuse_broken(error)
        reason = known_refusal(error, measure.model)
        if reason is not None:
            return None, reason
        traceback.print_exc()
        what = _in_a_line(error)
        failures.append(f"The faster path {candidate.name!r} failed unexpectedly ({what}) and was left out")
        return None, f"failed unexpectedly ({what})"
    noise = _largest(measure.noise)
    verdict = f"off by up to {_largest(got):.1e} nat per token, plain batches by {noise:.1e}"
    if not _within(got, measure.allowed):
        return None, verdict
    engine.tokens_fed = engine.tokens_padded = 0
    return engine, verdict


def known_refusal(error: Exception, model: Any) -> str | None:
    """Why a path cannot be gone, where that may happen with a sound qeval: a model or a device that does not
    do what the path needs (we say so, torch does, or the model's own attention fails with the tree's mask),
    memory that ran out, a compiler that gave up. None for everything else."""
    if isinstance(error, QevalError):
        return error.message
    if memory.ran_out(error):
        return "memory ran out"
    compiler = any(kind.__module__.startswith(_COMPILERS) for kind in type(error).__mro__)
    unmade = isinstance(error, NotImplementedError) or any(word in str(error) for word in _NOT_MADE)
    if compiler or unmade:
        return _in_a_line(error)
    if _in_own_attention(error, model):
        return f"its own code does not take it: {_in_a_line(error)}"
    return None


def _in_own_attention(error: Exception, model: Any) -> bool:
    """Whether a model failed that attends by code of its own, in that code: BLOOM's and Falcon's ALiBi and
    GPT-Neo want masks of their own shapes. Models that attend through transformers' interface take any."""
    if getattr(model, "_supports_attention_backend", False):
        return False
    frames = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    where = [name for name in frames if not name.startswith("torch.")]
    return bool(where) and not where[-1].startswith("qeval.")


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:_LONGEST_REASON]


def agrees(
    difference: NDArray[np.float64], noise: NDArray[np.float64], dtype: str, rounding: float = 0.0
) -> bool:
    """Whether differences of log-probabilities, (s,) nats, are rounding and nothing else.

    Their root mean square may be `TIMES_NOISE` that of `noise` (differences between two plain batch
    sizes), or `TIMES_ROUNDING` times `rounding` (see `_rounding`) if that is more, plus the floor of the
    dtype, but no more than its ceiling; and their largest `TIMES_LARGEST` times as much as that: a stranger
    seen or a position missed at few tokens stands out there.
    """
    return _within(difference, allowance(noise, dtype, rounding))


def allowance(
    noise: NDArray[np.float64], dtype: str, rounding: float = 0.0, *, bounded: bool = True
) -> float:
    """How far a path may be from one-by-one scoring, see `agrees`; at most CEILING where `bounded`."""
    allowed = max(TIMES_NOISE * _rms(noise), TIMES_ROUNDING * rounding)
    allowed += FLOOR.get(dtype, FLOOR["bfloat16"])
    return min(allowed, CEILING.get(dtype, CEILING["bfloat16"])) if bounded else allowed


def _within(difference: NDArray[np.float64], allowed: float) -> bool:
    finite = bool(np.isfinite(difference).all())
    return finite and _rms(difference) <= allowed and _largest(difference) <= TIMES_LARGEST * allowed


def _rounding(
    reference: Engine, requests: Sequence[TokenRequest], want: list[NDArray[np.float32]], dtype: str
) -> float:
    """How far attention written out in full moves one-by-one scoring (root mean square, nats).

    0 for dtypes of 32 bits, where it moves nothing that matters, and for models that cannot be switched.
    """
    if dtype not in {"float16", "bfloat16"}:
        return 0.0
    try:
        with attention.using(reference.lm.model, "eager"):
            found = _rms(_difference(_values(reference, requests), want))
    except Exception as error:  # noqa: BLE001  # a model's own code may fail in any way: the floor counts
        memory.refuse_broken(error)
        return 0.0
    return min(found, MOST_ROUNDING * FLOOR[dtype]) if np.isfinite(found) else 0.0


def _values(engine: Engine, requests: Sequence[TokenRequest]) -> list[NDArray[np.float32]]:
    """The log-probabilities of every request's scored tokens, in the order of the requests."""
    found = {index: values for index, values, _ in engine.log_probs(requests)}
    return [found[i] for i in range(len(requests))]


def _difference(got: list[NDArray[np.float32]], want: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """All differences in one array, float64."""
    return np.concatenate([a.astype(np.float64) - b for a, b in zip(got, want, strict=True)])


def _rms(x: NDArray[np.float64]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(x**2)))


def _largest(x: NDArray[np.float64]) -> float:
    """The largest absolute value, NaN if there is one."""
    return float(np.abs(x).max())


def _noted(engine: Engine, name: str, verdict: str, refused: list[str], failures: list[str]) -> Engine:
    """The engine with a note of how it was found."""
    engine.rung = name
    engine.smaller.clear()
    engine.note = f"{name}: {verdict}" + (f" (refused: {'; '.join(refused)})" if refused else "") + "."
    engine.failures = tuple(failures)
    return engine
