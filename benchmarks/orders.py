"""Show that schemes stand in the orders the literature agrees on, by the demo model's perplexity on a text.

    python benchmarks/orders.py --text FILE [--datasets DIR] [--windows 10] [--seeds 3] [--only WORD]
    python benchmarks/orders.py --text FILE --only "columns as they stand" --seeds 5 --json cpu.json
    python benchmarks/orders.py ... --device cuda --against cpu.json

The orders: fp16, 8, 4, 3 and 2 bits of rtn, hqq and gptq; gptq in act-order, and group-aware, no worse than
with columns as they stand, and gptq and awq no worse than rtn, by their means over calibration seeds; nf4
no worse than fp4. Perplexity is per token in disjoint windows of 512 tokens, and a step's is the mean over
its seeds. A step the wrong way is put down to noise where the difference of losses, window by window, is
within two standard errors of nothing. The exit status is the number of orders that do not hold.

With --against, the checkpoints made on this device are compared with those of the same schemes and seeds that
another device made: each perplexity over that of fp16 on its own device, and the mean of the seeds' ratios.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

from schemes import losses

from qeval.base.records import Variant
from qeval.load import model
from qeval.load.schemes import parse_schemes

BITS = (8, 4, 3, 2)


def orders(drawn: str, seeds: int) -> Iterator[tuple[str, list[list[str]]]]:
    """Each order: its name, and its steps from the best to the worst. A step is one scheme, or several that
    differ by their seed alone; `drawn` are the options of calibration."""
    for kind in ("rtn", "hqq"):
        yield f"bits of {kind}", [["fp16"], *([f"{kind}[bits={bits}]"] for bits in BITS)]
    yield "nf4 and fp4", [["bnb4"], ["bnb4[quant_type=fp4]"]]

    def seeded(kind: str, *options: str) -> list[str]:
        return [f"{kind}[{','.join([*options, drawn, f'seed={seed}'])}]" for seed in range(seeds)]

    yield "awq and rtn", [seeded("awq", "group_size=64"), ["rtn[bits=4]"]]
    yield "bits of gptq", [["fp16"], *(seeded("gptq", f"bits={bits}")[:1] for bits in BITS)]
    yield "gptq and rtn, both symmetric", [seeded("gptq", "bits=4"), ["rtn[bits=4,symmetric=true]"]]
    # The literature compares with columns as they stand; group-aware order, the default, may be better.
    plain = seeded("gptq", "bits=4", "group_aware=false")
    yield "act-order of gptq and columns as they stand", [seeded("gptq", "bits=4", "act_order=true"), plain]
    yield "group-aware gptq and columns as they stand", [seeded("gptq", "bits=4"), plain]


class Measured:
    """Losses by scheme and window, measured at first use and their perplexities printed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.text = arguments.text.read_text("utf-8")
        self.known: dict[str, list[float]] = {}

    def __call__(self, scheme: str) -> list[float]:
        """The loss of each window under a scheme, written as for --schemes."""
        if scheme not in self.known:
            ((_, parsed),) = parse_schemes(scheme)
            given = self.arguments
            loaded = model.load(
                Variant(scheme, "demo", parsed),
                device=given.device,
                cache_dir=given.cache,
                datasets_dir=given.datasets,
            )
            self.known[scheme] = losses(loaded.model, loaded.tokenizer, self.text, given.windows)
            print(f"{perplexity(self.known[scheme]):10.4f}  {scheme}", flush=True)
            if given.json:
                given.json.write_text(json.dumps(self.known), "utf-8")
        return self.known[scheme]


def perplexity(found: list[float]) -> float:
    return math.exp(mean(found))


def step_holds(better: list[list[float]], worse: list[list[float]]) -> str:
    """Whether the losses (seeds, windows) of `better` are the less: yes, within noise, or NO."""
    if mean(map(perplexity, better)) <= mean(map(perplexity, worse)):
        return "yes"
    first, second = ([mean(seeds) for seeds in zip(*step, strict=True)] for step in (better, worse))
    differences = [ours - theirs for ours, theirs in zip(first, second, strict=True)]
    noise = 2 * stdev(differences) / math.sqrt(len(differences))
    return "within noise" if mean(differences) <= noise else "NO"


def beside(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> Iterator[str]:
    """What two devices' checkpoints lost against fp16, scheme by scheme, and the means over seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    for scheme in ours.keys() & theirs.keys() - {"fp16"}:
        here, there = (perplexity(one[scheme]) / perplexity(one["fp16"]) for one in (ours, theirs))
        found[re.sub(r",?seed=\d+", "", scheme)].append(math.log(here / there))
        yield f"{here:8.4f} times fp16 here, {there:8.4f} there: {here / there - 1:+.2%}  {scheme}"
    for scheme, ratios in found.items():
        error = stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.nan
        yield f"mean of {len(ratios)}: {math.expm1(mean(ratios)):+.2%}, standard error {error:.2%}  {scheme}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--calibration", default="c4")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--only", default="", help="orders whose name holds this word")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "qeval")
    parser.add_argument("--datasets", type=Path)
    parser.add_argument("--json", type=Path, help="write the losses of every window to this file")
    parser.add_argument("--against", type=Path, help="such a file of another device")
    arguments = parser.parse_args()
    drawn = f"calibration={arguments.calibration},samples={arguments.samples},length={arguments.length}"
    measured, failed = Measured(arguments), 0
    for name, steps in orders(drawn, arguments.seeds):
        if arguments.only not in name:
            continue
        found = [[measured(scheme) for scheme in step] for step in steps]
        answers = [step_holds(better, worse) for better, worse in pairwise(found)]
        failed += "NO" in answers
        shown = " <= ".join(f"{mean(map(perplexity, step)):.3f}" for step in found)
        print(f"{name}: {shown}: {', '.join(answers)}", flush=True)
    if arguments.json or arguments.against:
        measured("fp16")
    if arguments.against:
        told = beside(measured.known, json.loads(arguments.against.read_text("utf-8")))
        print("\n".join(sorted(told)), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
