"""What making a GPTQ or AWQ checkpoint costs, phase by phase, and how good it is beside the plain way.

    python benchmarks/quantising.py --shape llama-2-7b --scheme gptq --place DIR
    python benchmarks/quantising.py --shape llama-2-7b --scheme gptq --blocks 1 --compare --place DIR

The model has random weights of the shape, and calibration is of random tokens: 128 samples of 2048 for gptq,
of 512 for awq, unless told otherwise. Prints the seconds of each phase, waiting for the device after each so
that they add up. With --compare, prints for each layer the error of its outputs as it is solved now, against
that of the plain way: Hessians in float32 arithmetic, one solve a layer, gptqmodel's own loop over columns.
With --load, reads the checkpoint afterwards as scoring does, and as measuring costs does.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from random_checkpoints import SHAPES, _save_tokenizer

from qeval.load.making import awq, gptq, kept, sums, walk
from qeval.load.making.checkpoint import group_size

LENGTHS = {"gptq": 2048, "awq": 512}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--scheme", choices=sorted(LENGTHS), default="gptq")
    parser.add_argument("--blocks", type=int, help="take only so many blocks of the shape")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--length", type=int)
    parser.add_argument("--act-order", action="store_true")
    parser.add_argument("--compare", action="store_true", help="solve each block the plain way too")
    parser.add_argument(
        "--load", action="store_true", help="read the checkpoint as scoring does, then once more"
    )
    parser.add_argument("--place", type=Path, required=True, help="directory for model and checkpoint")
    return parser.parse_args()


class Clock:
    """Seconds by phase; what runs within another phase counts there alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner = [0.0]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what is done within as a phase."""
        _wait()
        began = time.perf_counter()
        self.inner.append(0.0)
        try:
            yield
        finally:
            _wait()
            taken = time.perf_counter() - began
            self.seconds[name] += taken - self.inner.pop()
            self.inner[-1] += taken

    def watch(self, place: Any, function: str, name: str) -> None:
        """Count the calls of a module's function as a phase."""
        real = getattr(place, function)

        def clocked(*given: Any, **named: Any) -> Any:
            with self.phase(name):
                return real(*given, **named)

        setattr(place, function, clocked)


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def a_checkpoint(args: argparse.Namespace) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = dict(SHAPES[args.shape])
    sizes["num_hidden_layers"] = args.blocks or sizes["num_hidden_layers"]
    place = args.place / f"{args.shape}-{sizes['num_hidden_layers']}"
    if not place.is_dir():
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes), dtype=torch.float16)
        model.save_pretrained(place)
        _save_tokenizer(place)
    return place


def compared_gptq(real: Callable[..., Any], out: Callable[[str], None]) -> Callable[..., Any]:
    """`solve_group`, which also solves the plain way and tells both errors."""
    import torch

    def solve(group: dict[str, Any], told: Any, plan: Any, *, joined: bool) -> Any:
        before = {name: layer.weight.data.clone() for name, layer in group.items()}
        plain_group = copy.deepcopy(group)
        found, ours = timed(lambda: real(group, told, plan, joined=joined))
        wide = sums.Sums(gram=told.wide, tokens=told.tokens)
        with plain_loop():
            _, theirs = timed(lambda: real(plain_group, wide, plan, joined=False))
        for name, layer in group.items():
            now, then = (error(x.weight, before[name], told.wide) for x in (layer, plain_group[name]))
            same = float((layer.weight == plain_group[name].weight).float().mean())
            told_errors(out, name, now, then)
            out(f"  {same:.2%} of weights are equal")
        out(f"  solved in {ours:.2f} s, plainly in {theirs:.2f} s")
        narrow = float((told.gram - told.wide).norm() / told.wide.norm())
        out(f"  Hessian apart by {narrow:.1e} of its norm")
        if torch.cuda.is_available():  # the graphs against the loop on the very same Hessian
            again = copy.deepcopy(plain_group)
            for name, layer in again.items():
                layer.weight.data.copy_(before[name])
            _, by_graph = timed(lambda: real(again, wide, plan, joined=False))
            equal = all(torch.equal(again[name].weight, plain_group[name].weight) for name in again)
            out(f"  graphs equal the loop bit for bit: {equal} ({by_graph:.2f} s)")
        return found

    return solve


def told_errors(out: Callable[[str], None], name: str, now: float, then: float) -> None:
    out(f"{name}: error {now:.6f}, plainly {then:.6f}: {now / then - 1:+.4%}")


@contextmanager
def plain_loop() -> Iterator[None]:
    """Gptqmodel's own loop over columns, whose kernels are not built."""
    try:
        from gptqmodel.quantization import gptq_cuda
    except ImportError:
        yield
        return
    before = gptq_cuda.block_update_available
    gptq_cuda.block_update_available = lambda: False
    try:
        yield
    finally:
        gptq_cuda.block_update_available = before


def error(weight: Any, before: Any, gram: Any) -> float:
    """The squared error of a layer's outputs as a share of their square."""
    change, whole = weight.float() - before.float(), before.float()
    return float(((change @ gram) * change).sum() / ((whole @ gram) * whole).sum())


def timed(what: Callable[[], Any]) -> tuple[Any, float]:
    _wait()
    began = time.perf_counter()
    found = what()
    _wait()
    return found, time.perf_counter() - began


class Both(sums.Sums):
    """The sums, and beside them the gram in float32 arithmetic as it was summed before."""

    wide: Any = None

    def add(self, inputs: Any) -> None:
        """Count `inputs` in, both ways."""
        super().add(inputs)
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()
        product = rows.T @ rows
        self.wide = product if self.wide is None else self.wide.add_(product)


def compared_awq(real: Callable[..., Any], out: Callable[[str], None]) -> Callable[..., Any]:
    """`_search_block`, which also searches in float32 arithmetic and tells the errors of both, rounded."""

    def search(block: Any, wanted: Any, seen: dict[str, Any], plan: Any) -> None:
        plain, before = copy.deepcopy(block), copy.deepcopy(block)
        wide = {}
        for name, told in seen.items():
            wide[name] = sums.Sums(told.wide, told.magnitude.clone(), told.tokens, magnitudes=True)
        grams = {name: told.wide for name, told in seen.items()}
        _, ours = timed(lambda: real(block, wanted, seen, plan))
        coarse, awq.coarse_products = awq.coarse_products, lambda _: nullcontext()
        _, theirs = timed(lambda: real(plain, wanted, wide, plan))
        awq.coarse_products = coarse
        for producer, names in awq.PAIRS:
            for name in names:
                found = []
                for made in (block, plain):
                    scale = scale_of(made, before, producer)
                    weight = plan.round(made.get_submodule(name).weight.float()) / scale
                    was = before.get_submodule(name).weight.float()
                    if name in {"self_attn.v_proj", "mlp.up_proj"}:  # its rows were divided as well
                        weight = weight * rows_of(made, before, name)[:, None]
                    found.append(error(weight, was, grams[names[0]]))
                told_errors(out, name, *found)
        out(f"  searched in {ours:.2f} s, plainly in {theirs:.2f} s")

    return search


def scale_of(made: Any, before: Any, producer: str) -> Any:
    """The scale (in,) of a layer's inputs, by what its producer was divided by."""
    if "norm" in producer:
        return before.get_submodule(producer).weight.float() / made.get_submodule(producer).weight.float()
    return rows_of(made, before, producer)


def rows_of(made: Any, before: Any, name: str) -> Any:
    """What each output row of a layer was divided by; clipping moved weights as well, so by medians."""
    norm = {"self_attn.v_proj": "input_layernorm", "mlp.up_proj": "post_attention_layernorm"}[name]
    inputs = scale_of(made, before, norm)
    ratio = before.get_submodule(name).weight.float() * inputs / made.get_submodule(name).weight.float()
    return ratio.nanmedian(1).values


def prepared(args: argparse.Namespace, clock: Clock) -> Callable[[Any, Any, Path, Path], None]:
    """What makes the checkpoint of a model out of windows, with its phases watched."""
    clock.watch(walk, "capture", "capture")
    clock.watch(walk, "groups", "groups")
    clock.watch(walk, "go_on", "block passes")
    clock.watch(sums.Sums, "add", "Hessians")
    clock.watch(kept.Blocks, "keep", "writing beside")
    return prepared_gptq(args, clock) if args.scheme == "gptq" else prepared_awq(args, clock)


def prepared_gptq(args: argparse.Namespace, clock: Clock) -> Callable[[Any, Any, Path, Path], None]:
    if args.compare:
        gptq.Sums = Both
        gptq.solve_group = compared_gptq(gptq.solve_group, print)
    clock.watch(gptq, "_feed", "passes for Hessians")
    clock.watch(gptq, "solve_group", "solving")
    clock.watch(gptq, "_packed", "packing")
    clock.watch(gptq, "save", "writing at the end")

    def make(model: Any, windows: Any, work: Path, target: Path) -> None:
        size = group_size(model, 0)
        plan = gptq.Plan(4, size, args.act_order, not args.act_order, 0.05, symmetric=True)
        solved = gptq.quantise(model, windows, plan, work, lambda _: None)
        gptq.save(model, tokenizer_of(model), solved, plan, work, target)

    return make


def prepared_awq(args: argparse.Namespace, clock: Clock) -> Callable[[Any, Any, Path, Path], None]:
    if args.compare:
        awq.Sums = Both
        awq._search_block = compared_awq(awq._search_block, print)  # noqa: SLF001
    clock.watch(awq, "_search_block", "searching")
    clock.watch(awq, "_packed", "packing")
    clock.watch(awq, "save", "writing at the end")

    def make(model: Any, windows: Any, work: Path, target: Path) -> None:
        plan = awq.Plan(4, group_size(model, 0))
        awq.search(model, windows, plan, work, lambda _: None)
        awq.save(model, tokenizer_of(model), plan, work, target)

    return make


def tokenizer_of(model: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model.config.name_or_path)


def main() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    args, clock = arguments(), Clock()
    place = a_checkpoint(args)
    cuda = torch.cuda.is_available()
    device, dtype = ("cuda", torch.float16) if cuda else ("cpu", torch.float32)
    make = prepared(args, clock)
    work, target = args.place / "work", args.place / f"made-{args.scheme}"
    for path in (work, target):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    length = args.length or LENGTHS[args.scheme]
    windows = torch.randint(0, 32000, (args.samples, length), generator=torch.Generator().manual_seed(0))
    began = time.perf_counter()
    with clock.phase("load"):
        model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, device_map=device).eval()
    make(model, windows.tolist(), work, target)
    _wait()
    whole = time.perf_counter() - began
    told = torch.cuda.get_device_name(0) if cuda else f"CPU, {torch.get_num_threads()} threads"
    blocks = len(walk.find_blocks(model)[1])
    print(f"{args.scheme}, {args.shape}, {blocks} blocks, {args.samples} x {length} tokens, on {told}")
    for name, seconds in clock.seconds.items():
        print(f"  {name}: {seconds:.2f} s")
    print(f"  all else: {whole - sum(clock.seconds.values()):.2f} s")
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0
    print(f"  whole: {whole:.2f} s; peak {peak:.1f} GiB", flush=True)
    if args.load:
        del model
        read(place, target, args.scheme, device)


def read(model: Path, target: Path, scheme: str, device: str) -> None:
    """Load the checkpoint as scoring does and as cost does, and tell seconds, layers and notes."""
    from qeval.base.records import Variant
    from qeval.load import model as models
    from qeval.load.schemes import parse_schemes
    from qeval.score.engine.materialize import can_materialize, materialize

    ((_, parsed),) = parse_schemes(f"{scheme}@{target}")
    for fast in (False, True):
        loaded, seconds = timed(
            lambda fast=fast: models.load(
                Variant("v", str(model), parsed), device=device, cache_dir=target.parent / "cache", fast=fast
            )
        )
        print(
            f"loaded {'for costs' if fast else 'for scoring'} in {seconds:.1f} s: {loaded.provenance.modules}"
        )
        print("  " + "\n  ".join(loaded.provenance.notes))
        if not fast:
            assert can_materialize(loaded.model)
            (_, report), seconds = timed(lambda loaded=loaded: materialize(loaded.model))
            print(f"dequantised in {seconds:.1f} s: {report}", flush=True)
        del loaded


if __name__ == "__main__":
    main()
