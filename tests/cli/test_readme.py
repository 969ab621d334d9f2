"""The README's list of schemes by what they were run on is that of SCHEMES."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from qeval.load.schemes import SCHEMES

README = Path(__file__).parents[2] / "README.md"
HEADINGS = {
    "CPU, H100": "on a CPU and an H100",
    "CPU and H100, unpacked": "on both, unpacked",
    "CPU": "on a CPU",
    "H100": "on an H100",
    "not run": "not run yet",
}


def lines() -> list[str]:
    """One row for everything that schemes were run on."""
    found: dict[str, list[str]] = defaultdict(list)
    for spec in SCHEMES.values():
        found[spec.verified].append(f"`{spec.name}`")
    assert found.keys() == HEADINGS.keys()
    return [f"| {heading} | {', '.join(found[state])} |" for state, heading in HEADINGS.items()]


def test_the_readme_tells_what_each_scheme_was_run_on() -> None:
    assert "\n".join(lines()) in README.read_text("utf-8")
