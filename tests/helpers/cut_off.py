"""A process without network and compiler, in which schemes are loaded and score: see test_cut_off.py."""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from remembered import remember
from small_jobs import TASKS, a_job, score

from qeval.base.messages import Done
from qeval.base.records import Variant
from qeval.load.schemes import parse_schemes


def environment(place: Path) -> dict[str, str]:
    """Variables of a process that finds no compiler, and nothing that was built before."""
    nowhere = place / "nowhere"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA", "TORCH"))}
    caches = ("TORCH_EXTENSIONS_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME", "HOME")
    compilers = ("CC", "CXX", "CUDACXX", "CUDA_HOME", "CUDA_PATH", "NVCC")
    return {
        **kept,
        **{name: str(place / name.lower()) for name in caches},
        **dict.fromkeys(compilers, str(nowhere)),
        "PATH": str(nowhere),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
    }


def cut_off() -> None:
    """Let every way to the network raise."""

    def refuse(*_: object, **__: object) -> Any:
        raise OSError("the network is cut off")

    socket.socket.connect = refuse
    socket.create_connection = socket.getaddrinfo = refuse
    urllib.request.urlopen = refuse


def scored(model: Path, text: str, place: Path, device: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a scheme's provenance says after it has scored a task, and its notes about kernels."""
    ((name, scheme),) = parse_schemes(text)
    job = a_job(place, model, variant=Variant(name, str(model), scheme), tasks=TASKS[:1], cost=False)
    chosen = msgspec.structs.replace(job, settings=replace(job.settings, device=device, **settings))
    _, events = score(chosen)
    (done,) = (event for event in events if isinstance(event, Done))
    assert done.provenance is not None
    return dict(msgspec.to_builtins(done.provenance))


def main() -> None:
    """Score the schemes of a list in JSON, and print for each what was told, or why it failed."""
    given = json.loads(sys.argv[1])
    remember(setattr, Path(given["place"]))
    cut_off()
    for number, text in enumerate(given["schemes"]):
        place = Path(given["place"]) / f"runs-{number}"
        try:
            told = scored(Path(given["model"]), text, place, given["device"], given["settings"])
        except BaseException:  # noqa: BLE001 - told to the parent
            told = {"failed": traceback.format_exc()}
        sys.stdout.write(f"told {json.dumps([text, told])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
