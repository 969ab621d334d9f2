"""Load schemes one after the other and print what each is, its perplexity and its cost, as a Markdown table.

    python benchmarks/schemes.py --text FILE [--model demo] [--schemes fp16,bnb4,...] [--no-cost]

Perplexity is per token in disjoint windows of 512 tokens of the text, by the scheme's own kernels. A scheme
that cannot run here says why in its row and the others go on.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from qeval import models, schemes
from qeval.cost import CPU, GPU, Bench, measure
from qeval.errors import QevalError
from qeval.records import Variant

SCHEMES = (
    "fp32,bf16,fp16,bnb8,bnb4,bnb4[double_quant=true],bnb4[quant_type=fp4],gptq,gptq[act_order=true],"
    "gptq[bits=3],gptq[bits=2],gptq[bits=8],hqq[bits=8],hqq,hqq[bits=3],hqq[bits=2],torchao,torchao[weights=int4],"
    "torchao[weights=int4-packed],torchao[weights=float8],quanto,quanto[weights=int4],fp8,higgs,eetq,nvfp4,"
    "rtn[bits=8],rtn,rtn[bits=3],rtn[bits=2]"
)
WINDOW = 512


def perplexity(model: Any, tokenizer: Any, text: str, windows: int) -> float:
    found = losses(model, tokenizer, text, windows)
    return math.exp(sum(found) / len(found))


def losses(model: Any, tokenizer: Any, text: str, windows: int) -> list[float]:
    """The mean negative log-likelihood per token, in nats, of each window of the text."""
    import torch
    from torch.nn.functional import cross_entropy

    tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    count = min(windows, len(tokens) // WINDOW)
    rows = torch.tensor(tokens[: count * WINDOW]).reshape(count, WINDOW).to(model.device)
    found = []
    with torch.inference_mode():
        for row in rows:
            logits = model(row[None], use_cache=False).logits[0, :-1].float()
            found.append(float(cross_entropy(logits, row[1:])))
    return found


def bench(loaded: models.Loaded, arguments: argparse.Namespace) -> Bench:
    """What to measure of cost: all that a device's default names, or less where asked."""
    usual = CPU if loaded.model.device.type == "cpu" else GPU
    return replace(
        usual,
        new=tuple(n for n in usual.new if n <= arguments.new),
        repeats=arguments.repeats,
        warmup=1,
        seconds=arguments.seconds,
    )


def row(variant: Variant, arguments: argparse.Namespace, text: str) -> list[str]:
    try:
        loaded = models.load(
            variant, device=arguments.device, cache_dir=arguments.cache, datasets_dir=arguments.datasets
        )
        found = loaded.provenance
        quality = perplexity(loaded.model, loaded.tokenizer, text, arguments.windows)
        cost = measure(loaded, bench=bench(loaded, arguments)).measures if arguments.cost else {}
    except QevalError as error:
        return [variant.name, error.message]
    except RuntimeError as error:  # a kernel that does not know this device
        return [variant.name, f"fails while running: {' '.join(str(error).split())[:120]}"]
    classes = ", ".join(f"{count} {name}" for name, count in found.modules.items()) or "none"
    bits = f"{found.bits_per_weight:.2f}" if found.bits_per_weight else "-"
    size = f"{found.weight_bytes / 2**20:.0f}"
    timings = [f"{name} {timing.median:.3g} {timing.unit}" for name, timing in cost.items()]
    return [
        variant.name,
        classes,
        bits,
        size,
        found.dtype,
        f"{loaded.load_seconds:.1f}",
        f"{quality:.3f}",
        *timings,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--schemes", default=SCHEMES)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "qeval")
    parser.add_argument("--datasets", type=Path)
    parser.add_argument("--cost", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--new", type=int, default=512, help="most tokens generated at once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300, help="for the costs of one scheme")
    arguments = parser.parse_args()
    text = arguments.text.read_text("utf-8")
    print("| scheme | quantised modules | bits/weight | MiB | dtype | load s | perplexity | cost |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name, scheme in schemes.parse_schemes(arguments.schemes):
        cells = row(Variant(name, arguments.model, scheme), arguments, text)
        print("| " + " | ".join([*cells[:7], "; ".join(cells[7:])]) + " |", flush=True)


if __name__ == "__main__":
    main()
