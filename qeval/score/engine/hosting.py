"""Host memory that a GPU copies from while it computes, and the events that keep the two in order.

On a CPU the same calls are plain copies, and there is nothing to wait for.
"""

from __future__ import annotations

import weakref
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch


def memory(size: int) -> torch.Tensor:
    """So many bytes of host memory."""
    import torch

    return torch.empty(size, dtype=torch.uint8)


def pin(host: torch.Tensor, device: torch.device) -> None:
    """Let a GPU copy from this memory by itself, as long as the tensor lives. Where the system locks no more
    pages, copies are made all the same, and wait.

    torch's own pinned memory comes in powers of two: up to twice what is needed.
    """
    import torch

    if device.type != "cuda" or not len(host):
        return
    runtime: Any = torch.cuda.cudart()
    if int(runtime.cudaHostRegister(host.data_ptr(), len(host), 0)) == 0:
        weakref.finalize(host, runtime.cudaHostUnregister, host.data_ptr()).atexit = False


def stream(device: torch.device) -> Any:
    """A queue of a device for copies that run beside what it computes; None on a CPU."""
    import torch

    return torch.cuda.Stream(device) if device.type == "cuda" else None


def copy(host: torch.Tensor, target: torch.Tensor, queue: Any, after: Any) -> Any:
    """Copy host memory to a device, once the event `after` has happened; the event of its end."""
    import torch

    if queue is None:
        target.copy_(host)
        return None
    with torch.cuda.stream(queue):
        queue.wait_event(after)
        target.copy_(host, non_blocking=True)
        return queue.record_event()


def now(device: torch.device) -> Any:
    """An event after all that a device was asked to compute so far; None on a CPU."""
    import torch

    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


def wait(event: Any, device: torch.device) -> None:
    """Have a device compute nothing more before an event; this process goes on."""
    import torch

    if event is not None:
        torch.cuda.current_stream(device).wait_event(event)


def nowhere(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor that takes no memory; whoever computes with it gets no numbers."""
    return _nothing(dtype, device).expand(tuple(shape))


@cache
def _nothing(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    import torch

    value = float("nan") if dtype.is_floating_point and dtype.itemsize > 1 else 0
    return torch.full((1,), value, dtype=dtype, device=device)


def dense_stride(tensor: torch.Tensor) -> tuple[int, ...]:
    """A tensor's own strides where it fills its memory in some order of its dimensions, else those of a copy:
    products run in the order of memory, and so do their sums."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    if tensor.permute(order).is_contiguous():
        return tuple(tensor.stride())
    return tuple(tensor.contiguous().stride())


def tensors(module: Any) -> Iterator[tuple[Any, str, torch.Tensor]]:
    """Every tensor of a module, as (holder, attribute, tensor), with those that bitsandbytes keeps in the
    state of a quantisation."""
    from torch import Tensor

    for part in module.modules():
        for own in part.parameters(recurse=False):
            yield own, "data", own.data
            yield from _of_state(getattr(own, "quant_state", None))
        for name, buffer in part.named_buffers(recurse=False):
            yield part, name, buffer
        for name, value in list(vars(part).items()):
            if isinstance(value, Tensor):
                yield part, name, value


def _of_state(state: Any) -> Iterator[tuple[Any, str, torch.Tensor]]:
    from torch import Tensor

    if state is None:
        return
    for name in ("absmax", "code", "offset"):
        value = getattr(state, name, None)
        if isinstance(value, Tensor):
            yield state, name, value
    yield from _of_state(getattr(state, "state2", None))


def move(model: Any, device: torch.device) -> None:
    """Move all tensors of a model that are elsewhere to a device; what modules share stays shared."""
    moved: dict[int, torch.Tensor] = {}
    for holder, name, tensor in [*tensors(model)]:  # all are held meanwhile, or ids would come again
        if getattr(holder, name).device.type != device.type:
            if id(tensor) not in moved:
                moved[id(tensor)] = tensor.to(device)
            setattr(holder, name, moved[id(tensor)])
    for module in model.modules():  # what bitsandbytes keeps of a stack of experts
        state = getattr(module, "quant_state", None)
        if state is not None and hasattr(state, "to"):
            state.to(device)
    if hasattr(model, "hf_device_map"):
        model.hf_device_map = {"": device}
