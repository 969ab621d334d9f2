"""Show that schemes stand in the orders the literature agrees on, by the demo model's perplexity on a text.

    python benchmarks/orders.py --text FILE [--datasets DIR] [--windows 10] [--seeds 3] [--only WORD]

The orders: fp16, 8, 4, 3 and 2 bits of rtn, hqq and gptq; gptq in act-order no worse than without, and gptq
and awq no worse than rtn, by their means over calibration seeds; nf4 no worse than fp4. A step counts as kept
where it is less than 0.1 % the wrong way, which a text of this length cannot tell from none. Perplexity is
per token in disjoint windows of 512 tokens. The exit status is the number of orders that do not hold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean

from schemes import perplexity

from qeval import models
from qeval.records import Variant
from qeval.schemes import parse_schemes

SLACK = 1.001
"""How much larger a perplexity may be than the one it should not exceed."""
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
    yield (
        "act-order of gptq",
        [seeded("gptq", "bits=4", "act_order=true"), seeded("gptq", "bits=4")],
    )


class Measured:
    """Perplexities by scheme, measured at first use and printed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.text = arguments.text.read_text("utf-8")
        self.known: dict[str, float] = {}

    def __call__(self, scheme: str) -> float:
        """The perplexity of a scheme, written as for --schemes."""
        if scheme not in self.known:
            ((_, parsed),) = parse_schemes(scheme)
            given = self.arguments
            loaded = models.load(
                Variant(scheme, "demo", parsed),
                device=given.device,
                cache_dir=given.cache,
                datasets_dir=given.datasets,
            )
            self.known[scheme] = perplexity(loaded.model, loaded.tokenizer, self.text, given.windows)
            print(f"{self.known[scheme]:10.4f}  {scheme}", flush=True)
        return self.known[scheme]


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
    arguments = parser.parse_args()
    drawn = f"calibration={arguments.calibration},samples={arguments.samples},length={arguments.length}"
    measured, failed = Measured(arguments), 0
    for name, steps in orders(drawn, arguments.seeds):
        if arguments.only not in name:
            continue
        values = [mean(measured(scheme) for scheme in step) for step in steps]
        holds = all(better <= SLACK * worse for better, worse in pairwise(values))
        failed += not holds
        shown = " <= ".join(f"{value:.3f}" for value in values)
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {name}: {shown}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
