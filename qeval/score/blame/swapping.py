"""Swapping modules of a variant into its baseline, and running on from the first block that holds one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from qeval.base.fidelity import Stream
from qeval.score.engine.body import CausalModel, on_device
from qeval.score.fidelity.divergence import compare
from qeval.score.fidelity.heads import Replayed, head_of
from qeval.score.fidelity.passes import ELEMENTS

if TYPE_CHECKING:
    import torch
    from torch import nn


class Boundaries:
    """The states that enter each block of the baseline, batch by batch, in host memory, and the states that
    enter its head."""

    def __init__(self, lm: CausalModel, blocks: nn.ModuleList, stream: Stream, batch: int) -> None:
        self.lm, self.blocks, self.stream, self.batch = lm, blocks, stream, batch
        self.own_head = Replayed(head_of(lm), lm)
        learn_form(lm, blocks)
        self.entering: list[list[torch.Tensor]] = []
        self.head: list[torch.Tensor] = []
        for at in range(0, len(stream), batch):
            seen: list[torch.Tensor] = []
            handles = [block.register_forward_pre_hook(_noting(seen), with_kwargs=True) for block in blocks]
            try:
                self.head.append(self.run(at).cpu())
            finally:
                for handle in handles:
                    handle.remove()
            self.entering.append(seen)

    def run(self, at: int) -> torch.Tensor:
        """The states (b, t, h) that enter the head, of the batch that begins at a window."""
        import torch

        windows = [
            self.stream.window(number)[:-1] for number in range(at, min(at + self.batch, len(self.stream)))
        ]
        tokens = np.zeros((len(windows), max(map(len, windows))), np.int64)
        for row, window in zip(tokens, windows, strict=True):
            row[: len(window)] = window
        with torch.no_grad():
            return self.lm.hidden(on_device(tokens, self.lm.device))

    def scored(self, states: torch.Tensor, at: int) -> torch.Tensor:
        """The rows (n, h) of the scored positions."""
        import torch

        first = self.stream.first[at : at + len(states)].tolist()
        ends = [len(self.stream.window(at + row)) - 1 for row in range(len(states))]
        return torch.cat([states[row, start - 1 : ends[row]] for row, start in enumerate(first)])

    def divergence(self, block: int | None) -> float:
        """The mean KL (nats) of what the model is now from what it was, everything before a block being as it
        was (None: run from the tokens on)."""
        import torch

        total = torch.zeros((), dtype=torch.float64, device=self.lm.device)
        for number, at in enumerate(range(0, len(self.stream), self.batch)):
            with self._resumed(number, block):
                now = self.scored(self.run(at), at)
            before = self.scored(self.head[number], at).to(self.lm.device)
            step = max(1, ELEMENTS.get(now.device.type, 2**24) // self.lm.vocabulary)
            with torch.no_grad():
                for some, other in zip(before.split(step), now.split(step), strict=True):
                    wanted = torch.zeros(len(some), dtype=torch.int64, device=some.device)
                    logits = self.own_head.logits(some), self.lm.logits(other)
                    total += compare(*logits, wanted).kl.sum()
        return float(total) / self.stream.n

    @contextmanager
    def _resumed(self, number: int, block: int | None) -> Iterator[None]:
        """While open, blocks before the given one give back what enters them, and it gets what entered it."""
        if not block:
            yield
            return
        kept = self.entering[number][block].to(self.lm.device)
        passed = list(self.blocks[:block])
        own = [vars(module).get("forward") for module in passed]
        for module in passed:
            module.forward = _passing(module)
        handle = self.blocks[block].register_forward_pre_hook(_giving(kept), with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            for module, forward in zip(passed, own, strict=True):
                del module.forward
                if forward is not None:
                    module.forward = forward


def _noting(seen: list[torch.Tensor]) -> Any:
    def hook(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        states = arguments[0] if arguments else keywords["hidden_states"]
        seen.append(states.detach().cpu())

    return hook


def _giving(kept: torch.Tensor) -> Any:
    def hook(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, Any]:
        if arguments:
            return (kept, *arguments[1:]), keywords
        return arguments, {**keywords, "hidden_states": kept}

    return hook


def _passing(module: Any) -> Any:
    """A forward pass that hands its states on, in the form in which this kind of block gives them."""
    in_tuple = getattr(module, _FORM, False)

    def forward(*arguments: Any, **keywords: Any) -> Any:
        states = arguments[0] if arguments else keywords["hidden_states"]
        return (states, None) if in_tuple else states

    return forward


_FORM = "gives_tuples_to_blame"


def learn_form(lm: CausalModel, blocks: nn.ModuleList) -> None:
    """Find out whether a model's blocks give their states in a tuple."""
    import torch

    def hook(module: Any, _: Any, output: Any) -> None:
        setattr(module, _FORM, isinstance(output, tuple))

    handles = [block.register_forward_hook(hook) for block in blocks]
    try:
        with torch.no_grad():
            lm.hidden(torch.zeros((1, 2), dtype=torch.int64, device=lm.device))
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def swapped(base: nn.Module, variant: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """While open, modules of the baseline are those of the variant."""
    own = {name: base.get_submodule(name) for name in names}
    try:
        for name in names:
            base.set_submodule(name, variant.get_submodule(name))
        yield
    finally:
        for name, module in own.items():
            base.set_submodule(name, module)
