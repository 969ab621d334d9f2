"""Load schemes one after the other and print what each is, its perplexity and its cost, as Markdown tables.

    python benchmarks/schemes.py [--model demo] [--text FILE] [--schemes fp16,bnb4,...] [--json out.json]
    python benchmarks/schemes.py --shape llama-2-7b --schemes fp16,bnb4 --packed gptq,gptq-act-order,awq

Perplexity is per token in disjoint windows of 512 tokens of the text, by the scheme's own kernels. A scheme
that cannot run here says why in its row and the others go on. With `--shape` the model has random weights
of that shape: good for costs, which do not depend on the values, and for nothing else; `--packed` then adds
checkpoints of random codes in groups of 128.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import random_checkpoints

from qeval.base.errors import QevalError
from qeval.base.records import Variant
from qeval.load import model as models
from qeval.load import schemes
from qeval.score.cost import CPU, QUICK, Bench, measure

SCHEMES = (
    "fp32,bf16,fp16,bnb8,bnb4,bnb4[double_quant=true],bnb4[quant_type=fp4],gptq,gptq[act_order=true],"
    "gptq[bits=3],gptq[bits=2],gptq[bits=8],hqq[bits=8],hqq,hqq[bits=3],hqq[bits=2],torchao,torchao[weights=int4],"
    "torchao[weights=int4-packed],torchao[weights=float8],quanto,quanto[weights=int4],fp8,higgs,eetq,nvfp4,"
    "rtn[bits=8],rtn,rtn[bits=3],rtn[bits=2]"
)
WINDOW = 512
Row = dict[str, Any]


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


def bench(device: str, arguments: argparse.Namespace) -> Bench:
    """What to measure of cost: what a device measures soon, or what was asked."""
    usual = CPU if device == "cpu" else QUICK
    asked = {
        "new": arguments.new,
        "generate_batches": arguments.batches,
        "prefill_batches": arguments.batches,
    }
    chosen = {name: tuple(map(int, value.split(","))) for name, value in asked.items() if value}
    return replace(usual, repeats=arguments.repeats, seconds=arguments.seconds, **chosen)


def row(variant: Variant, arguments: argparse.Namespace, text: str | None) -> Row:
    """What a variant is, scores and costs, or why it does not run."""
    try:
        loaded = models.load(
            variant,
            device=arguments.device,
            cache_dir=arguments.cache,
            datasets_dir=arguments.datasets,
            fast=True,
        )
        found = loaded.provenance
        quality = perplexity(loaded.model, loaded.tokenizer, text, arguments.windows) if text else None
        device = loaded.model.device.type
        cost = asdict(measure(loaded, bench=bench(device, arguments))) if arguments.cost else {}
    except QevalError as error:
        return {"scheme": variant.name, "error": error.message}
    except RuntimeError as error:  # a kernel that does not know this device
        return {"scheme": variant.name, "error": f"fails while running: {' '.join(str(error).split())[:120]}"}
    return {
        "scheme": variant.name,
        "perplexity": quality,
        "load_seconds": loaded.load_seconds,
        **{name: getattr(found, name) for name in ("modules", "bits_per_weight", "weight_bytes", "dtype")},
        "device": found.device,
        "versions": dict(found.versions),
        **cost,
    }


def line(found: Row, measures: list[str]) -> str:
    """A row of the table."""
    if "error" in found:
        return f"| {found['scheme']} | {found['error']} |"
    classes = ", ".join(f"{count} {name}" for name, count in found["modules"].items()) or "none"
    shown = found.get("measures", {})
    cells = [
        found["scheme"],
        classes,
        f"{found['bits_per_weight']:.2f}" if found["bits_per_weight"] else "-",
        f"{found['weight_bytes'] / 2**20:.0f}",
        f"{found['load_seconds']:.1f}",
        f"{found['perplexity']:.3f}" if found["perplexity"] else "-",
        *(told(shown[name]) if name in shown else "-" for name in measures),
    ]
    return "| " + " | ".join(cells) + " |"


def told(timing: dict[str, Any]) -> str:
    """The median, with the least and the greatest."""
    return f"{timing['median']:.3g} ({timing['low']:.3g} to {timing['high']:.3g})"


def wanted(arguments: argparse.Namespace) -> list[Variant]:
    """The variants to measure, of the model named or of random weights."""
    shape, model = arguments.shape, arguments.model
    if shape:
        model = str(random_checkpoints.plain(arguments.cache, shape))
    texts = [arguments.schemes]
    for name in filter(None, arguments.packed.split(",")):
        place = random_checkpoints.packed(arguments.cache, shape, name)
        texts.append(f"{name}={name.partition('-')[0]}@{place}")
    return [Variant(name, model, scheme) for text in texts for name, scheme in schemes.parse_schemes(text)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--shape", choices=sorted(random_checkpoints.SHAPES), help="random weights instead")
    parser.add_argument("--schemes", default=SCHEMES)
    parser.add_argument("--packed", default="", help="with --shape: gptq, gptq-act-order, awq")
    parser.add_argument("--text", type=Path, help="what perplexity is measured on; without one it is not")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "qeval")
    parser.add_argument("--datasets", type=Path)
    parser.add_argument("--cost", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--new", help="tokens to generate, e.g. 30,512")
    parser.add_argument("--batches", help="e.g. 1,16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=300, help="for the costs of one scheme")
    parser.add_argument("--json", type=Path, help="write everything measured to this file, row by row")
    arguments = parser.parse_args()
    text = arguments.text.read_text("utf-8") if arguments.text else None
    rows: list[Row] = []
    measures: list[str] = []
    for variant in wanted(arguments):
        rows.append(row(variant, arguments, text))
        new = [name for name in rows[-1].get("measures", {}) if name not in measures]
        measures += new
        if new:
            names = " | ".join(name.replace("/", ", ") for name in measures)
            print(f"| scheme | quantised modules | bits/weight | MiB | load s | perplexity | {names} |")
        print(line(rows[-1], measures), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
