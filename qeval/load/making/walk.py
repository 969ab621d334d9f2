"""Walking through a model's blocks with calibration text: what every scheme that is made here shares."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from torch import Tensor, nn

from qeval.base.errors import QevalError

BATCH_TOKENS = {"cpu": 4096}
"""Tokens of calibration in one forward pass of a block, by kind of device: sums in batches are rounded in
batches, so that another number makes other checkpoints."""
GPU_BATCH_TOKENS = 16384


class Stop(Exception):  # noqa: N818 - no error
    """Raised in a hook to end a forward pass that has served its purpose; see `until_stop`."""


def find_blocks(model: Any) -> tuple[str, nn.ModuleList]:
    """The longest list of like modules: the model's blocks, and their name. Raises QevalError for a model
    without one."""
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and any(True for _ in linears(module[0]))
    ]
    if not lists:
        raise QevalError(
            f"{type(model).__name__} has no blocks with linear layers, so it cannot be quantised here.",
            "Use a ready checkpoint: <scheme>@<Hub id or directory>.",
        )
    return max(lists, key=lambda pair: len(pair[1]))


def linears(block: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The plain linear layers of a block with their names; subclasses (routers) compute in their own way."""
    return ((name, module) for name, module in block.named_modules() if type(module) is nn.Linear)


def wanted(block: nn.Module, prefix: str, plain: Collection[str]) -> dict[str, nn.Linear]:
    """The layers of a block that are to be quantised: all but those that `plain` names in full, with the
    block's `prefix`."""
    return {name: layer for name, layer in linears(block) if f"{prefix}{name}" not in plain}


def every_linear(model: Any) -> dict[str, nn.Linear]:
    """The linear layers of all blocks by their names in full."""
    name, blocks = find_blocks(model)
    return {
        f"{name}.{index}.{layer}": found
        for index, block in enumerate(blocks)
        for layer, found in linears(block)
    }


def capture(model: Any, first: nn.Module, tokens: Tensor) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """The hidden states (samples, length, features) that enter the first block, batch by batch, and the
    keywords it is called with; `tokens` are (samples, length)."""
    states: list[Tensor] = []
    keywords: list[dict[str, Any]] = []

    def hook(_: nn.Module, arguments: tuple[Any, ...], keyword: dict[str, Any]) -> None:
        states.append(arguments[0] if arguments else keyword.pop("hidden_states"))
        keywords.append(keyword)
        raise Stop

    handle = first.register_forward_pre_hook(hook, with_kwargs=True)
    size = max(1, BATCH_TOKENS.get(model.device.type, GPU_BATCH_TOKENS) // tokens.shape[1])
    try:
        for batch in tokens.split(size):
            until_stop(model, batch.to(model.device), use_cache=False)
    finally:
        handle.remove()
    return states, keywords


def until_stop(module: Callable[..., Any], *arguments: Any, **keywords: Any) -> None:
    """Call `module` to its end, or to where a hook raises Stop."""
    try:
        module(*arguments, **keywords)
    except Stop:
        return


def primary(output: Any) -> Tensor:
    """The hidden states among what a block returns."""
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


def go_on(block: nn.Module, states: list[Tensor], keywords: list[dict[str, Any]]) -> None:
    """Replace the states, batch by batch, by what the block makes of them."""
    for at, keyword in enumerate(keywords):
        states[at] = primary(block(states[at], **keyword))


def first_of_batch(keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords for the first sample alone: whatever carries the batch is cut to it."""

    def cut(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(cut(part) for part in value)
        return value[:1] if isinstance(value, Tensor) and value.dim() > 1 else value

    return {name: cut(value) for name, value in keywords.items()}


def groups(block: nn.Module, state: Tensor, keywords: dict[str, Any]) -> list[dict[str, nn.Linear]]:
    """The block's linear layers in the order in which they run, those that read the same tensor together."""
    seen: list[tuple[Tensor, dict[str, nn.Linear]]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Linear, arguments: tuple[Tensor, ...]) -> None:
            for tensor, group in seen:
                if tensor is arguments[0]:
                    group[name] = layer
                    return
            seen.append((arguments[0], {name: layer}))

        return hook

    handles = [layer.register_forward_pre_hook(note(name)) for name, layer in linears(block)]
    try:
        block(state, **keywords)
    finally:
        for handle in handles:
            handle.remove()
    return [group for _, group in seen]
