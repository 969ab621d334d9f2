"""Write the parts of the documentation that follow from the code: schemes, GPUs, commands, messages.

    python docs/generate.py

What stands between `<!-- generated: NAME -->` and `<!-- end of NAME -->` in the PAGES is written anew by the
function of that name in BLOCKS; all else there is written by hand.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import reference
import verified

from qeval.base.names import option_text
from qeval.cli.variables import VARIABLES
from qeval.load.packages import install_command
from qeval.load.rates import GPUS
from qeval.load.schemes import SCHEMES
from qeval.load.spec import SchemeSpec
from qeval.load.systems import SYSTEMS

ROOT = Path(__file__).parents[1]
WRITTEN = ("schemes", "memory", "scale", "configuration", "cli", "messages")
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in WRITTEN))
MARKED = re.compile(r"(<!-- generated: ([\w ]+) -->\n).*?(\n<!-- end of \2 -->)", re.DOTALL)
CHECKPOINTS = {"no": "no", "optional": "or quantised while loading", "required": "only"}
MADE = "or made and kept here"


def schemes() -> str:
    """One row for each scheme: what it is, what it needs, and on what it truly ran."""
    rows = [
        f"| [`{spec.name}`](#{spec.name}) | {spec.summary}"
        f" | {MADE if spec.make else CHECKPOINTS[spec.checkpoint]}"
        f" | {needs(spec)} | {spec.verified} |"
        for spec in SCHEMES.values()
    ]
    head = "| scheme | what it is | ready checkpoints | needs | verified on |\n|---|---|---|---|---|"
    return "\n".join([head, *rows])


def gpus() -> str:
    """The GPUs whose time can be told, and where their peaks come from."""
    head = "| `--gpu` | memory, GiB | 16-bit TFLOP/s | by | rate |\n|---|---|---|---|---|"
    rows = [
        f"| `{name}` | {gpu.memory} | {gpu.peak:g} | {gpu.source} | {rate} |"
        for name, gpu in GPUS.items()
        for rate in ["measured" if gpu.measured else "estimate"]
    ]
    return "\n".join([head, *rows])


def variables() -> str:
    """The environment variables and what each means."""
    rows = [f"| `{name}` | {meaning} |" for name, meaning in VARIABLES.items()]
    return "\n".join(["| variable | meaning |", "|---|---|", *rows])


def systems() -> str:
    """The systems that qeval runs on, and what it does there."""
    rows = [f"| {one.name} | {one.scoring} | {one.judging} |" for one in SYSTEMS.values()]
    return "\n".join(["| system | scoring a model | judging, reports, import |", "|---|---|---|", *rows])


def needs(spec: SchemeSpec) -> str:
    """What must be installed, and the GPU."""
    if not spec.packages:
        return "nothing more"
    gpu = f", {spec.gpu}" if spec.gpu else ""
    neither = "; neither with `unpack=true`" if "unpack" in spec.defaults else ""
    return f"`{install_command(spec)}`{gpu}{neither}"


def scheme_texts() -> str:
    """What each scheme says of itself, and its options."""
    return "\n\n".join(
        f"### {spec.name}\n\n{spec.doc}\n{options(spec)}".replace("\n\n\n", "\n\n")
        for spec in SCHEMES.values()
    )


def options(spec: SchemeSpec) -> str:
    """A scheme's options with their defaults and choices."""
    lines = []
    for option in spec.options:
        choices = f" ({', '.join(map(option_text, option.choices))})" if option.choices else ""
        lines.append(f"- `{option.name}={option_text(option.default)}`: {option.help}{choices}")
    return "\n".join(lines) or "No options."


def schemes_by_run() -> str:
    """The schemes by what they were run on."""
    found: dict[str, list[str]] = defaultdict(list)
    for spec in SCHEMES.values():
        found[spec.verified].append(f"`{spec.name}`")
    states = sorted(found, key=lambda state: (state == "not run", -state.count(", H"), state))
    rows = [f"| {ran_on(state)} | {', '.join(found[state])} |" for state in states]
    return "\n".join(["| run | schemes |", "|---|---|", *rows])


def ran_on(state: str) -> str:
    """What `verified` means, in words."""
    if state == "not run":
        return "not run yet"
    told, _, unpacked = state.partition(", unpacked")
    *others, last = told.split(", ")
    places = f"{', '.join(others)} and {last}" if others else last
    return f"on {places}{', unpacked' if unpacked or state.endswith('unpacked') else ''}"


def records() -> str:
    """The records that tell what ran, and where they were made."""
    told = [f"- `tests/records/{file.name}`: {verified.setting(file)}" for file in verified.records()]
    return "\n".join(told) or "- none yet"


def streamed_schemes() -> str:
    """The schemes whose weights can be streamed from host memory."""
    return ", ".join(f"`{spec.name}`" for spec in SCHEMES.values() if spec.streams)


BLOCKS: dict[str, Callable[[], str]] = {
    "schemes": schemes,
    "scheme texts": scheme_texts,
    "schemes by run": schemes_by_run,
    "records": records,
    "streamed schemes": streamed_schemes,
    "gpus": gpus,
    "cli": reference.cli,
    "messages": reference.messages,
    "variables": variables,
    "systems": systems,
}


def generated(text: str) -> str:
    """A page with its marked parts written anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n{found[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(generated(page.read_text("utf-8")), "utf-8")
