"""Write what each scheme truly ran on, qeval/load/verified.json, by the records of tests in tests/records.

    python docs/verified.py

A record is pytest's own JUnit XML: a test that passed names the schemes that it loaded, and on what kind of
device; the suite names the device, the versions and the last commit that changed qeval/. `make verified`
makes that of a CPU, `make verified-gpu` that of a GPU. Records are tidied of the machine's name and paths.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from qeval.load.schemes import SCHEMES

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "tests" / "records"
TARGET = ROOT / "qeval" / "load" / "verified.json"


def records() -> list[Path]:
    """The committed records."""
    return sorted(RECORDS.glob("*.xml"))


def loaded(record: Path) -> Iterator[tuple[str, str]]:
    """(scheme, device) of each test of a record that passed; "fp8 unpacked" is a scheme of its own here."""
    root = ET.parse(record).getroot()  # noqa: S314 - our own file
    device = short(_property(root, "device"))
    kind = "cpu" if device == "CPU" else "cuda"
    for case in root.iter("testcase"):
        if all(case.find(word) is None for word in ("failure", "error", "skipped")):
            for told in case.iter("property"):
                scheme, _, on = told.get("value", "").partition(" on ")
                if told.get("name") == "scheme" and on == kind:
                    yield scheme, device


def setting(record: Path) -> str:
    """On what a record was made, in words."""
    root = ET.parse(record).getroot()  # noqa: S314 - our own file
    told = {name: _property(root, name) for name in ("device", "torch", "transformers", "commit")}
    versions = f"torch {told['torch']}, transformers {told['transformers']}"
    return f"{told['device']} ({versions}, commit {told['commit'][:7]})"


def _property(root: ET.Element, name: str) -> str:
    found = root.find(f"./testsuite/properties/property[@name='{name}']")
    return "" if found is None else found.get("value", "")


def short(device: str) -> str:
    """A device as tables call it: "NVIDIA H100 80GB HBM3" is "H100"."""
    found = re.search(r"\b(?:[A-Z]\d{2,3}S?|\d{4})\b", device)
    return found[0] if found else device


def verified() -> dict[str, str]:
    """By scheme, where it ran: "CPU, H100", or "CPU, H100, unpacked" where it ran in no other way."""
    places: dict[str, set[str]] = defaultdict(set)
    for record in records():
        for scheme, device in loaded(record):
            if scheme.removesuffix(" unpacked") in SCHEMES:  # tests make some of their own
                places[scheme].add(device)
    told = {}
    for scheme in sorted({name.removesuffix(" unpacked") for name in places}):
        packed, unpacked = places.get(scheme), places.get(f"{scheme} unpacked")
        told[scheme] = (
            ", ".join(sorted(packed)) if packed else f"{', '.join(sorted(unpacked or ()))}, unpacked"
        )
    return told


def tidy(record: Path) -> None:
    """Leave out of a record what belongs to the machine alone: its name, and where the tests lay."""
    text = record.read_text("utf-8").replace(f"{ROOT}/", "")
    record.write_text(re.sub(r' hostname="[^"]*"', "", text), encoding="utf-8")


if __name__ == "__main__":
    for record in records():
        tidy(record)
    TARGET.write_text(json.dumps(verified(), indent=1) + "\n", encoding="utf-8")
