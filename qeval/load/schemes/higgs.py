"""higgs: Hadamard rotation and a Gaussian grid, ready checkpoints."""

from __future__ import annotations

from qeval.load.packages import ACCELERATE
from qeval.load.reading.opening import ATTENTION
from qeval.load.reading.ready import load_ready
from qeval.load.spec import Package, SchemeSpec

DOC = """\
Ready checkpoints only, since transformers 5 no longer makes them. Needs flute-kernel 0.4.1 and
fast-hadamard-transform (source only, compiled at installation), and a GPU; 16-bit types only. The wheel of
flute-kernel 0.4.2 on PyPI was built for an older torch and does not load with torch 2.11.
"""
SPECS = (
    SchemeSpec(
        "higgs",
        "HIGGS, Hadamard rotation and a Gaussian grid; ready checkpoints",
        load_ready,
        (ATTENTION,),
        (
            Package("flute-kernel", "flute", "0.4.1"),
            Package("fast-hadamard-transform", "fast_hadamard_transform"),
            ACCELERATE,
        ),
        "higgs",
        DOC,
        place=100,
        device="cuda",
        checkpoint="required",
        methods=("higgs",),
    ),
)
