"""A causal language model taken apart into body and head, so that the head runs where it is needed."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.base.errors import QevalError
from qeval.score.engine.memory import refuse_broken
from qeval.score.engine.spreading import spread_of
from qeval.score.engine.streaming import streamer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from numpy.typing import NDArray

LOGITS_BYTES = {"cuda": 2**30, "cpu": 2**26}
"""The memory for one slice of float32 log-probabilities; on a CPU, little more than its caches."""


class UnsupportedError(QevalError):
    """A model cannot be scored along some path; the next rung of the ladder is tried."""


class NonFiniteError(QevalError):
    """A scored log-probability is NaN or infinite. `index` is the request's place in the list scored."""

    def __init__(self, index: int) -> None:
        super().__init__(
            f"The model's logits are not finite for request {index}.",
            "Load the model in bfloat16 or float32, or look for damaged weights.",
        )
        self.index = index


class CausalModel:
    """A transformers causal language model; `body` is the module that makes the last hidden states.

    The head is never called by name: the model's own forward runs on hidden states computed before, in
    place of its body's. So scaling, soft-capping and whatever else a model does to its logits stay
    the model's own. `body` is None where no such module is found; then only `plain` works.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        config: Any = getattr(model, "config", None)
        self.config = config.get_text_config() if hasattr(config, "get_text_config") else config
        weight = next(p for p in model.parameters() if p.is_floating_point())
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype
        self.vocabulary = 0  # the width of the logits
        self.like: Any = None  # an output of the body, whose type the replayed one shares
        self.body = _find_body(self)
        self.compiled: list[tuple[Any, str, Callable[..., Any]]] = []

    def plain(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (b, t, v) of right-padded tokens (b, t), by the model's plain forward."""
        return _logits(self.model(input_ids=tokens, **self._no_cache(self.model)))

    def hidden(self, tokens: torch.Tensor, **more: Any) -> torch.Tensor:
        """Last hidden states (b, t, h) of tokens (b, t)."""
        if self.body is None:
            raise UnsupportedError("its body and its head cannot be told apart")
        if "use_cache" not in more:
            more |= self._no_cache(self.body)
        with _compiled(self.compiled):
            return _first(self.body(input_ids=tokens, **more))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (r, v) of hidden states (r, h), by the model's own head."""
        return replayed(self.model, self.body, self.like, hidden)

    def cache(self, tokens: torch.Tensor) -> Any:
        """The KV cache after tokens (1, p)."""
        if self.body is None or not _takes(self.body, "past_key_values", "use_cache"):
            raise UnsupportedError("it takes no KV cache")
        cache = getattr(self.body(input_ids=tokens, use_cache=True), "past_key_values", None)
        if not _can_be_copied(cache):
            raise UnsupportedError("it has no KV cache that can be copied")
        return cache

    def compile(self, wanted: bool) -> None:
        """Let `hidden` run compiled from now on, or as it is: the body block by block, for blocks of a kind
        share their code, or in one where it has none."""
        import torch

        placed = streamer_of(self.model) or spread_of(self.model)
        if wanted and placed is not None:
            self.compiled = placed.compiled()
            return
        parts = (_blocks(self.body) or [self.body]) if wanted else []
        self.compiled = [
            (part, "_compiled_call_impl", torch.compile(part._call_impl, dynamic=False))  # noqa: SLF001
            for part in parts
        ]

    def accepts(self, *names: str) -> bool:
        """Whether the body's forward takes arguments of these names."""
        return self.body is not None and _takes(self.body, *names)

    def _no_cache(self, module: Any) -> dict[str, bool]:
        return _no_cache(module)


def replayed(model: Any, body: Any, like: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Logits (r, v) that a model makes of hidden states (r, h) in the place of what its body returns, which
    is an output such as `like`; the body may have no weights."""
    with _replay(body, _in_place_of(like, hidden[None])) as calls:
        out = _logits(model(input_ids=_zeros(hidden), **_no_cache(model)))[0]
    if not calls:
        raise UnsupportedError("its body and its head cannot be told apart")
    return out


def _no_cache(module: Any) -> dict[str, bool]:
    return {"use_cache": False} if _takes(module, "use_cache") else {}


def log_probs(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    width: int,
    device: torch.device,
    rows: NDArray[np.integer],
    picks: NDArray[np.int64],
    targets: NDArray[np.int32],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 log-probabilities (s,) of targets (s,) and whether each is the most likely token, (s,) bool.

    `logits_of` maps row indices (r,) to logits (r, `width`). It is called on slices of `rows` short
    enough for `LOGITS_BYTES`, each of which is normalised in two halves, for float32 takes twice what 16 bits
    do; target k belongs to row `rows[picks[k]]`.
    """
    import torch

    order = np.argsort(picks, kind="stable")
    step = max(1, LOGITS_BYTES.get(device.type, 2**28) // (4 * width))
    at, values, best = on_device(rows, device), [], []
    for begin in range(0, len(rows), step):
        logits = logits_of(at[begin : begin + step])
        half = -(-len(logits) // 2)
        for start in range(begin, begin + len(logits), half):
            first, last = np.searchsorted(picks, [start, min(start + half, begin + step)], sorter=order)
            part = order[first:last]
            some = logits[start - begin : start - begin + half]
            table = torch.log_softmax(some, -1, dtype=torch.float32)
            local, target = (
                on_device(picks[part] - start, table.device),
                on_device(targets[part], table.device),
            )
            values.append(table[local, target])
            best.append(table.argmax(-1)[local] == target)
            del table  # or two would be held while the next is made
        del logits
    back = on_device(np.argsort(order), values[0].device)
    return torch.cat(values)[back], torch.cat(best)[back]


def on_device(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array on the device as int64, without waiting for the work queued there."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array, np.int64))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def _compiled(parts: Sequence[tuple[Any, str, Callable[..., Any]]]) -> Iterator[None]:
    """While open, these modules run compiled code, which stands under the names told."""
    for part, name, code in parts:
        vars(part)[name] = code
    try:
        yield
    finally:
        for part, name, _ in parts:
            vars(part).pop(name, None)


def _blocks(body: Any) -> list[Any]:
    """The modules of the longest list in a body: its blocks."""
    import torch

    lists = (module for module in body.modules() if isinstance(module, torch.nn.ModuleList))
    return list(max(lists, key=len, default=()))


def _find_body(lm: CausalModel) -> Any:
    """The outermost module whose first output, put in its place, gives the model's own logits."""
    import torch

    model = lm.model.get_base_model() if hasattr(lm.model, "get_base_model") else lm.model
    base = getattr(model, "base_model", None)
    tokens = torch.zeros((1, 3), dtype=torch.int64, device=lm.device)
    with torch.no_grad():
        lm.vocabulary = lm.plain(tokens).shape[-1]
    # Llama 4's own name for its base is that of a part which it has among pictures only.
    for body in (base, getattr(base, "decoder", None), getattr(model, "model", None)):
        if body is None or body is model:
            continue
        seen: list[Any] = []
        hook = body.register_forward_hook(lambda _m, _a, out, seen=seen: seen.append(out))
        try:
            with torch.no_grad():
                want = lm.plain(tokens)
        finally:
            hook.remove()
        if seen and _replays(lm, body, seen[0], want):
            return body
    return None


def _replays(lm: CausalModel, body: Any, output: Any, want: torch.Tensor) -> bool:
    """Whether the model, given its body's own output anew, makes the same logits."""
    import torch

    lm.body, lm.like = body, output
    try:
        with torch.no_grad():
            got = lm.logits(_first(output)[0])
    except Exception as error:  # noqa: BLE001  # a custom model may fail in any way: it has no usable body
        refuse_broken(error)
        return False
    return got.shape == want[0].shape and bool(
        torch.allclose(got.float(), want[0].float(), rtol=1e-2, atol=1e-2)
    )


@contextmanager
def _replay(body: Any, output: Any) -> Iterator[list[None]]:
    """While open, `body` returns `output` whatever it is given; the list has one entry per call."""
    calls: list[None] = []

    def forward(*_args: Any, **_kwargs: Any) -> Any:
        calls.append(None)
        return output

    before = body.__dict__.get("forward")
    body.forward = forward
    try:
        yield calls
    finally:
        if before is None:
            del body.forward
        else:
            body.forward = before


def _in_place_of(output: Any, hidden: torch.Tensor) -> Any:
    """An output of the same type that holds these hidden states alone."""
    import torch
    from transformers.utils import ModelOutput

    if isinstance(output, torch.Tensor):
        return hidden
    if isinstance(output, ModelOutput):
        return type(output)(**{next(iter(output.keys())): hidden})
    return (hidden, *([None] * (len(output) - 1)))


def _takes(module: Any, *names: str) -> bool:
    """Whether a module's forward takes arguments of these names, by name or by **kwargs."""
    parameters = inspect.signature(module.forward).parameters
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return anything or all(name in parameters for name in names)


def _can_be_copied(cache: Any) -> bool:
    """Whether all that a cache holds is copied with it: transformers copies keys and values, but not what
    layers keep in dictionaries beside them, the states of recurrent ones and DeepSeek V4's buffers."""
    return hasattr(cache, "batch_repeat_interleave") and not any(
        any(isinstance(kept, dict) for kept in vars(layer).values())
        or not hasattr(layer, "batch_repeat_interleave")
        for layer in getattr(cache, "layers", ())
    )


def _first(output: Any) -> torch.Tensor:
    """The hidden states in a body's output, be it a tensor, a tuple or a ModelOutput."""
    import torch

    first: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return first


def _logits(output: Any) -> torch.Tensor:
    """The logits in a model's output."""
    logits: torch.Tensor = output.logits if hasattr(output, "logits") else _first(output)
    return logits


def _zeros(hidden: torch.Tensor) -> torch.Tensor:
    """Token ids (1, r) that stand for hidden states (r, h)."""
    import torch

    return torch.zeros((1, len(hidden)), dtype=torch.int64, device=hidden.device)
