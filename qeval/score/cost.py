"""What a loaded variant costs: latency and throughput of reading a prompt and of generating, each measured.

Always on the scheme's own kernels, never on weights materialised for scoring.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qeval.base.costs import Cost, Timing
from qeval.base.errors import QevalError

if TYPE_CHECKING:
    from qeval.load.model import Loaded


@dataclass(frozen=True)
class Bench:
    """What is measured. `prompt` tokens are read at each of `prefill_batches`; `new` tokens are generated
    after them at each of `generate_batches`, with the KV cache and without. Each is measured `repeats` times
    after `warmup` times that do not count. What would take longer than is left of `seconds` in all is
    measured fewer times, but no fewer than three; where that does not fit either it is left out, and said:
    before it is begun, as far as what was measured before tells."""

    prompt: int
    prefill_batches: tuple[int, ...]
    generate_batches: tuple[int, ...]
    new: tuple[int, ...]
    repeats: int
    warmup: int
    seconds: float


GPU = Bench(512, (1, 16), (1, 4, 16), (30, 512), repeats=5, warmup=2, seconds=600)
CPU = Bench(64, (1, 4), (1,), (8,), repeats=3, warmup=1, seconds=45)
QUICK = Bench(512, (1, 16), (1, 16), (30,), repeats=3, warmup=1, seconds=40)
"""What a GPU measures unasked, in `SHARE` of the time."""
SHARE = 0.05
"""The share of a worker's seconds that may go into costs nobody asked for."""
FEWEST = 3
"""Times that a figure is measured at the least, lest its spread say nothing."""
_LONGEST_REASON = 300
CPU_NOTE = (
    "Costs on a CPU are measured with prompts of 64 tokens and 8 new ones; on a GPU with 512 and up to 512."
)


def affordable(device: str, spent: float, loading: float) -> Bench | None:
    """What a GPU ("cuda") measures unasked: `QUICK` in what is left of `SHARE` of the time after `loading`
    seconds, None where nothing is; `spent` are the worker's seconds so far."""
    seconds = min(QUICK.seconds, SHARE / (1 - SHARE) * spent - loading)
    return replace(QUICK, seconds=seconds) if device == "cuda" and seconds > 0 else None


def measure(
    loaded: Loaded, *, progress: Callable[[str], None] = lambda _: None, bench: Bench | None = None
) -> Cost:
    """Measure a loaded variant; `bench` defaults to GPU or CPU by the model's device, and is clipped to what
    the model takes.

    Latencies are in ms per token of one sequence, throughputs in tokens per second over the batch.
    Generation is timed from the first new token on, greedily and never stopping early. What fails is left
    out, and the notes say why.
    """
    asked = bench or (CPU if loaded.model.device.type == "cpu" else GPU)
    bench = _clipped(asked, positions(loaded.model))
    timings: dict[str, Timing] = {}
    left_out: dict[str, list[str]] = {}
    end = time.perf_counter() + bench.seconds
    passes: dict[int, float] = {}
    for name, tokens, batch, work in _measures(loaded.model, bench):
        ahead = (bench.warmup + min(FEWEST, bench.repeats)) * _expected(name, tokens, batch, passes)
        if ahead and time.perf_counter() + ahead > end:
            left_out.setdefault("for want of time", []).append(name)
            continue
        progress(f"measuring {name.replace('/', ', ')}")
        found = _attempt(work, bench, loaded.model.device, end)
        if isinstance(found, str):
            left_out.setdefault(found, []).append(name)
            continue
        if name.startswith("prefill"):
            passes[batch] = statistics.median(found)
        timings[name] = _timing([1000 * value / tokens for value in found], "ms/token")
        timings[f"{name}/throughput"] = _timing([batch * tokens / value for value in found], "tokens/s")
    notes = (*_method(bench, asked, timings), *(_missing(why, names) for why, names in left_out.items()))
    return Cost(loaded.provenance.device, loaded.load_seconds, None, timings, notes)


def _expected(name: str, tokens: int, batch: int, passes: dict[int, float]) -> float:
    """Seconds that one turn of a measure takes, from above, by those of `passes` over a prompt at the batches
    measured so far; 0 where they do not tell. A new token takes no longer than a pass over one prompt, and
    without the KV cache as long as one over all prompts."""
    if not passes:
        return 0.0
    nearest = max((size for size in passes if size <= batch), default=min(passes))
    prompt = passes[nearest] * max(1.0, batch / nearest)
    if name.startswith("prefill"):
        return prompt
    each = prompt if name.endswith("cache=off") else passes[min(passes)]
    return prompt + tokens * each


def positions(model: Any) -> int | None:
    """The longest sequence that the model's own configuration allows, None where it names no limit."""
    config = model.config.get_text_config()
    found = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions"))
    return next((value for value in found if isinstance(value, int) and value > 0), None)


def _clipped(bench: Bench, longest: int | None) -> Bench:
    """The bench with prompt and new tokens together in `longest` positions, new ones in half of them."""
    if longest is None or bench.prompt + max(bench.new, default=0) <= longest:
        return bench
    new = tuple(dict.fromkeys(min(count, longest // 2) for count in bench.new))
    return replace(bench, prompt=min(bench.prompt, longest - max(new, default=0)), new=new)


def _method(bench: Bench, asked: Bench, timings: dict[str, Timing]) -> Iterator[str]:
    """How the figures were found, as far as there are any."""
    counts = sorted({timing.repeats for timing in timings.values()})
    if counts:
        times = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
        yield (
            f"Medians of {times} after {bench.warmup} that do not count, in brackets the least and the"
            " greatest; greedy, prompt of random tokens."
        )
    if bench != asked:
        new = f" and up to {max(bench.new)} new ones" if bench.new else ""
        yield f"Clipped to what the model takes: prompts of {bench.prompt} tokens{new}."
    elif asked == CPU:
        yield CPU_NOTE


def _missing(why: str, names: list[str]) -> str:
    return f"Not measured: {', '.join(names)} ({why})."


def _timing(values: list[float], unit: str) -> Timing:
    return Timing(statistics.median(values), min(values), max(values), len(values), unit)


def _attempt(work: Callable[[], Any], bench: Bench, device: Any, end: float) -> list[float] | str:
    """What `_repeat` finds, or why it found nothing."""
    try:
        found = _repeat(work, bench, device, end)
    except Exception as error:  # noqa: BLE001 - a library's surprise costs its own figure only
        return reason(error)
    return "for want of time or memory" if found is None else found


def reason(error: Exception) -> str:
    """An error in one line: the first of a library's, with its kind."""
    text = str(error) if isinstance(error, QevalError) else f"{type(error).__name__}: {error}"
    return text.splitlines()[0][:_LONGEST_REASON]


def _measures(model: Any, bench: Bench) -> Iterator[tuple[str, int, int, Callable[[], Any]]]:
    """Name, tokens of one sequence, batch, and what to time (see `_repeat`)."""
    for batch in bench.prefill_batches:
        name = f"prefill/batch={batch}/prompt={bench.prompt}"
        yield name, bench.prompt, batch, _prefill(model, batch, bench.prompt)
    for new in bench.new:  # the long ones last, lest they take the time of the others
        for cached in (True, False):
            for batch in bench.generate_batches:
                name = f"generate/batch={batch}/new={new}/cache={'on' if cached else 'off'}"
                yield name, new, batch, _generate(model, batch, bench.prompt, new, cached)


def _prompt(model: Any, batch: int, length: int) -> Any:
    """(batch, length) random tokens, the same at every call."""
    import torch

    generator = torch.Generator().manual_seed(0)
    size = int(model.get_input_embeddings().weight.shape[0])
    return torch.randint(0, size, (batch, length), generator=generator).to(model.device)


def _prefill(model: Any, batch: int, length: int) -> Callable[[], None]:
    """One pass over the prompt, with the head on its last token, as the start of generation needs it."""
    tokens = _prompt(model, batch, length)

    def work() -> None:
        model(tokens, use_cache=True, logits_to_keep=1)

    return work


def _generate(
    model: Any, batch: int, length: int, new: int, cached: bool
) -> Callable[[], Callable[[], None]]:
    """Prepare by reading the prompt; the function returned then generates `new` tokens after it."""
    import torch

    prompt = _prompt(model, batch, length)

    def prepare() -> Callable[[], None]:
        first = model(prompt, use_cache=cached, logits_to_keep=1)
        token = first.logits[:, -1:].argmax(-1)

        def with_cache() -> None:
            past, last = first.past_key_values, token
            for _ in range(new):
                step = model(last, past_key_values=past, use_cache=True, logits_to_keep=1)
                past, last = step.past_key_values, step.logits[:, -1:].argmax(-1)

        def without_cache() -> None:
            sequence = torch.cat([prompt, token], 1)
            for _ in range(new):
                step = model(sequence, use_cache=False, logits_to_keep=1)
                sequence = torch.cat([sequence, step.logits[:, -1:].argmax(-1)], 1)

        return with_cache if cached else without_cache

    return prepare


def _repeat(work: Callable[[], Any], bench: Bench, device: Any, end: float) -> list[float] | None:
    """Seconds of each counted repeat; None where neither the memory nor the time until `end` suffices.

    Where `work` returns a function, that function is what is timed, and `work` only prepares it.
    """
    import torch

    found: list[float] = []
    fewest, last = min(FEWEST, bench.repeats), 0.0
    try:
        with torch.inference_mode():
            for turn in range(bench.warmup + bench.repeats):
                began = time.perf_counter()
                # The first turn may compile kernels, so it tells little of how long the others take.
                ahead = 1 if turn < 2 else max(1, fewest - len(found))  # noqa: PLR2004
                if began + ahead * last > end:
                    break
                seconds = _once(work, device)
                last = time.perf_counter() - began
                if turn >= bench.warmup:
                    found.append(seconds)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    return found if len(found) >= fewest else None


def _once(work: Callable[[], Any], device: Any) -> float:
    """Seconds of one call, by device events on CUDA."""
    if device.type != "cuda":
        start = time.perf_counter()
        prepared = work()
        if prepared is not None:
            start = time.perf_counter()
            prepared()
        return time.perf_counter() - start
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    prepared = work()
    if prepared is not None:
        begin.record()
        prepared()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1000
