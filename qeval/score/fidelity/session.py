"""Fidelity of one loaded variant: of the baseline what enters its head, and its noise floor; of the others
their positions against it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from qeval.base import numbers
from qeval.base.errors import QevalError
from qeval.base.fidelity import Measured, Positions, Role, Stream
from qeval.base.hashing import digest
from qeval.base.messages import FidelityJob, Job, Note, Stage
from qeval.base.protocols import Protocol
from qeval.load.device import device_kind, gpu_free, threads
from qeval.load.versions import versions
from qeval.score.clock import phase
from qeval.score.engine.body import CausalModel
from qeval.score.fidelity import inputs, streams, traces
from qeval.score.fidelity.heads import check_causal
from qeval.score.fidelity.passages import worst
from qeval.score.fidelity.passes import Feed, compared
from qeval.score.harness.door import longest
from qeval.score.inputs import loaded_variant
from qeval.store import fidelity as stored
from qeval.store import inputs as kept_inputs
from qeval.store.inputs import Kept

if TYPE_CHECKING:
    import torch

    from qeval.load.model import Loaded
    from qeval.score.cells import Say

VERSION = 1
"""Raised when a change of qeval's own code changes numbers."""
FLOOR_TOKENS = {"cuda": 2**16, "cpu": 2**10}
"""Tokens that the noise floor is measured on, by the kind of device."""
_EVERY_SECONDS = 20.0


@dataclass(frozen=True, eq=False)
class Bench:
    """What a measurement needs: the job and what it asks of fidelity, the model as it is scored, its
    tokenizer. `floats` loads the model once more, calculating in float32."""

    job: Job
    asked: FidelityJob
    lm: CausalModel
    tokenizer: Any
    say: Say
    floats: Callable[[], Any] | None = None

    @property
    def run(self) -> Path:
        """The run's directory."""
        return Path(self.job.runs_dir) / self.job.run_id

    @property
    def cache_dir(self) -> Path:
        """The cache."""
        return Path(self.job.cache_dir)

    @property
    def is_baseline(self) -> bool:
        """Whether the variant is the one that the others are compared with."""
        return self.job.variant.name == self.asked.name

    @property
    def where(self) -> dict[str, Any]:
        """What beside model and tokens can change numbers."""
        settings = self.job.settings
        return {
            "fidelity": VERSION,
            "dtype": settings.dtype,
            "materialize": settings.materialize,
            "trust_remote_code": settings.trust_remote_code,
            "device": device_kind(settings.device),
            "threads": threads(settings.device),
            "versions": versions("transformers"),
        }

    def told(self, what: str, of: int) -> Callable[[int], None]:
        """What hears of windows that are done, and says so now and then."""
        spoke = time.monotonic()

        def hear(window: int) -> None:
            nonlocal spoke
            if time.monotonic() - spoke > _EVERY_SECONDS:
                spoke = time.monotonic()
                self.say(Stage(f"{what}: window {window + 1} of {of}"))

        return hear


def bench_of(job: Job, loaded: Loaded, model: Any, say: Say) -> Bench | None:
    """What to measure a loaded variant with; None where the job asks for nothing of the kind on its
    device."""
    asked = job.fidelity
    if asked is None or not (asked.protocols or asked.on_gpu):
        return None
    if job.settings.device.startswith("cuda"):
        asked = replace_protocols(asked, (*asked.protocols, *asked.on_gpu))
    if not asked.protocols:
        return None
    return Bench(job, asked, CausalModel(model), loaded.tokenizer, say, lambda: _in_floats(job, say))


def _in_floats(job: Job, say: Say) -> Any:
    """The job's variant, calculating in float32."""
    settings = dataclasses.replace(job.settings, dtype="float32")
    return loaded_variant(msgspec.structs.replace(job, settings=settings), say).model


def replace_protocols(asked: FidelityJob, protocols: Sequence[Protocol]) -> FidelityJob:
    """The same for other protocols, each once."""
    return msgspec.structs.replace(asked, protocols=tuple(dict.fromkeys(protocols)), on_gpu=())


def measure(bench: Bench) -> bool:
    """Measure the variant by each protocol, and store what was found; what is stored already is left.

    Returns False where the baseline's inputs are not there yet, or are damaged; then nothing was measured by
    that protocol. Raises QevalError for a model whose distributions cannot be compared, and what streams
    raise.
    """
    check_causal(bench.lm)
    found = [
        _measure(bench, protocol) for protocol in bench.asked.protocols
    ]  # each of them, whatever the first gives
    return all(found)


def _measure(bench: Bench, protocol: Protocol) -> bool:
    with phase("fidelity"):
        if bench.is_baseline:
            _measure_baseline(bench, protocol)
            return True
        kept = _found(bench, protocol)
        if kept is None:
            return False
        stream = kept_inputs.stream_of(bench.cache_dir, kept)
        if stored.whole(bench.run, _key(bench, protocol, stream, "candidate")) is None:
            bench.say(Stage(f"fidelity to {bench.asked.name}: {protocol.name}"))
            _store(bench, protocol, kept, stream, "candidate")
        return True


# --- the baseline -------------------------------------------------------------------------------


def _measure_baseline(bench: Bench, protocol: Protocol) -> None:
    """See that the baseline's inputs and its noise floor are there."""
    kept = _found(bench, protocol) or _made(bench, protocol)
    stream = kept_inputs.stream_of(bench.cache_dir, kept)
    part = inputs.beginning(stream, FLOOR_TOKENS.get(bench.lm.device.type, FLOOR_TOKENS["cuda"]))
    for role in _floor(bench):
        if stored.whole(bench.run, _key(bench, protocol, part, role)) is None:
            bench.say(Stage(f"the noise floor of {protocol.name}: {_ROLES[role]}"))
            _store(bench, protocol, kept, part, role)


_ROLES = {"packing": "other packing", "plain": "the plain path", "float32": "in float32"}


def _floor(bench: Bench) -> Iterator[Role]:
    """The ways to measure the baseline once more: in float32 on a GPU, where it is in 16 bits and there is
    room for another of twice the size."""
    yield "packing"
    yield "plain"
    if bench.lm.device.type == "cuda" and bench.lm.dtype.itemsize == _HALF and bench.floats is not None:
        weights = sum(one.numel() * _FLOAT for one in bench.lm.model.parameters())
        if weights * _SPARE < gpu_free(str(bench.lm.device)):
            yield "float32"


_HALF, _FLOAT, _SPARE = 2, 4, 1.2


def _made(bench: Bench, protocol: Protocol) -> Kept:
    """The baseline's inputs, made and stored; how much they take is said before."""
    stream = _traced(bench, protocol) if protocol.kind == "trace" else _stream(bench, protocol)
    width, size = int(bench.lm.config.hidden_size), bench.lm.dtype.itemsize
    whole = stream.n
    stream = inputs.fitting(stream, width, size, bench.asked.cache_limit)
    bytes_ = numbers.in_bytes(stream.n * width * size)
    part = "" if stream.n == whole else f" of {whole}, as many as --fidelity-cache-limit allows"
    where = bench.cache_dir / kept_inputs.FOLDER
    bench.say(
        Note(
            f"fidelity: the baseline's head inputs on {protocol.name}, {stream.n} positions{part}, take"
            f" {bytes_} in {where}"
        )
    )
    place = inputs.Place(
        bench.cache_dir, bench.asked.cache_limit, _inputs_key(bench, protocol, stream), len(bench.tokenizer)
    )
    return inputs.make(bench.lm, stream, place, bench.told(f"fidelity: {protocol.name}", len(stream)))


def _traced(bench: Bench, protocol: Protocol) -> Stream:
    """The stream of a trace: each prompt with the answer of the baseline, whose tokens are scored. A prompt
    that `windows` leaves out is not answered; it is taken to have an answer of full length."""
    every = _prompts(bench, protocol)
    prompts = every[: protocol.windows]
    bench.say(Stage(f"{protocol.name}: answers of {bench.asked.name}"))
    told = bench.told(f"{protocol.name}: answers", len(prompts))
    found = traces.answers(bench.lm, prompts, protocol.answer, len(bench.tokenizer), told)
    pairs = [([*prompt, *answer], len(prompt)) for prompt, answer in zip(prompts, found, strict=True)]
    stream = streams.joined(pairs, protocol)
    left_out = (len(every) - len(prompts)) * protocol.answer
    return dataclasses.replace(stream, available=stream.available + left_out)


def _prompts(bench: Bench, protocol: Protocol) -> list[list[int]]:
    room = _longest(bench) - protocol.answer
    return streams.framed_prompts(protocol, bench.tokenizer, room)


def _stream(bench: Bench, protocol: Protocol) -> Stream:
    mirror = bench.job.settings.datasets_dir
    return streams.stream_of(protocol, bench.tokenizer, Path(mirror) if mirror else None, _longest(bench))


def _longest(bench: Bench) -> int:
    return longest(bench.lm.config, bench.tokenizer)


# --- what is there ------------------------------------------------------------------------------


def _found(bench: Bench, protocol: Protocol) -> Kept | None:
    """The baseline's stored inputs, None where there are none."""
    if protocol.kind == "trace":
        return kept_inputs.find(bench.cache_dir, _inputs_key(bench, protocol, None))
    stream = _stream(bench, protocol)
    whole = kept_inputs.find(bench.cache_dir, _inputs_key(bench, protocol, stream))
    if whole is not None:
        return whole
    width, size = int(bench.lm.config.hidden_size), bench.lm.dtype.itemsize
    part = inputs.fitting(stream, width, size, bench.asked.cache_limit)
    return (
        kept_inputs.find(bench.cache_dir, _inputs_key(bench, protocol, part)) if part.n < stream.n else None
    )


def _inputs_key(bench: Bench, protocol: Protocol, stream: Stream | None) -> str:
    """The hash of everything that can change what enters the baseline's head. Of a trace, which the baseline
    itself writes, the prompts stand for the stream."""
    asked: dict[str, Any] = {}
    if protocol.kind == "trace":
        every = _prompts(bench, protocol)
        prompts = every[: protocol.windows]
        asked = {"prompts": digest(prompts), "answer": protocol.answer, "limit": bench.asked.cache_limit}
        if len(prompts) < len(every):
            asked["of"] = len(every)
    elif stream is not None:
        asked = {"stream": stream.sha256}
    return digest({"variant": bench.asked.baseline, "asked": asked, **bench.where})


def _key(bench: Bench, protocol: Protocol, stream: Stream, role: Role) -> str:
    part = {"available": stream.available} if stream.n < stream.available else {}
    return digest(
        {
            "variant": bench.job.identity,
            "baseline": bench.asked.baseline,
            "stream": stream.sha256,
            "role": role,
            "protocol": [protocol.name, protocol.clamp],
            **part,
            **bench.where,
        }
    )


# --- measuring ----------------------------------------------------------------------------------


def _store(bench: Bench, protocol: Protocol, kept: Kept, stream: Stream, role: Role) -> None:
    """Measure the variant, or the baseline once more, and store its positions."""
    start = time.monotonic()
    lm = CausalModel(bench.floats()) if role == "float32" and bench.floats else bench.lm
    opened = inputs.Opened(bench.cache_dir, kept, bench.lm)
    vocabulary = _vocabulary(bench, kept)
    checked = inputs.proved(lm, stream, lm.logits, vocabulary)
    feed = Feed(lm, stream, _batch(kept, role), plain=role == "plain")
    head = _as_it_is if role == "plain" else lm.logits
    told = bench.told(f"fidelity: {protocol.name}", len(stream))
    heads = (opened.logits, _without_gradient(head))
    found = compared(stream, opened.states, feed.rows(), heads, vocabulary, clamp=protocol.clamp, told=told)
    one = Measured(
        key=_key(bench, protocol, stream, role),
        protocol=protocol,
        variant=bench.job.variant.name,
        baseline=bench.asked.name,
        role=role,
        stream=stream.sha256,
        n=stream.n,
        n_available=stream.available,
        windows=len(stream),
        vocabulary=vocabulary,
        cut=bench.lm.vocabulary - vocabulary,
        cut_baseline=kept.cut,
        batch=feed.batch,
        dtype=str(lm.dtype).removeprefix("torch."),
        device=device_kind(bench.job.settings.device),
        variant_digest=digest(bench.job.identity),
        baseline_digest=digest(bench.asked.baseline),
        checked=checked,
        seconds=time.monotonic() - start,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
        worst=_worst(bench, stream, found, role),
    )
    stored.add(bench.run, one, found, stream)


def _worst(bench: Bench, stream: Stream, found: Positions, role: Role) -> Any:
    return worst(stream, found, bench.tokenizer) if role == "candidate" else ()


def _batch(kept: Kept, role: Role) -> int:
    """How many windows are fed at once: as many as of the baseline; of its other packing another number."""
    if role == "packing":
        return 1 if kept.batch > 1 else 2
    return 1 if role == "plain" else kept.batch


def _vocabulary(bench: Bench, kept: Kept) -> int:
    """How many tokens are compared. Raises QevalError where the two models do not know the same ones."""
    own = min(bench.lm.vocabulary, len(bench.tokenizer))
    if own != kept.vocabulary:
        raise QevalError(
            f"{bench.job.variant.name} knows {own} tokens, and {bench.asked.name} {kept.vocabulary}: their"
            " distributions are not over the same vocabulary.",
            "Compare variants of one model, with one tokenizer.",
        )
    return own


def _as_it_is(logits: torch.Tensor) -> torch.Tensor:
    return logits


def _without_gradient(head: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def logits(states: torch.Tensor) -> torch.Tensor:
        import torch

        with torch.no_grad():
            return head(states)

    return logits
