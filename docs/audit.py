"""`make audit`: the licences of what qeval needs, as installed here, and what pip-audit knows against it."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

_LONGEST = 60  # a licence's name; some write its whole text there
_PATIENCE = 180  # seconds


def needed(name: str = "qeval") -> dict[str, metadata.Distribution]:
    """What is installed of a package and of all that it needs, extras included, by canonical name."""
    found: dict[str, metadata.Distribution] = {}
    todo = [(name, frozenset(metadata.metadata(name).get_all("Provides-Extra") or ()))]
    seen = set()
    while todo:
        one, extras = todo.pop()
        if (one, extras) in seen:
            continue
        seen.add((one, extras))
        try:
            found[_canonical(one)] = distribution = metadata.distribution(one)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed here
        todo += [(needs.name, frozenset(needs.extras)) for needs in _requirements(distribution, extras)]
    return dict(sorted(found.items()))


def _requirements(distribution: metadata.Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    for text in distribution.requires or ():
        needs = Requirement(text)
        if needs.marker is None or any(needs.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            yield needs


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(distribution: metadata.Distribution) -> str:
    """The licence that a package names: its expression, else its classifiers, else its words, else how its
    file of a licence begins."""
    told = distribution.metadata
    kinds = [
        line.rpartition(" :: ")[2]
        for line in told.get_all("Classifier") or ()
        if line.startswith("License ::") and line.count("::") > 1
    ]
    words = " ".join((told.get("License") or "").split())
    return told.get("License-Expression") or ", ".join(kinds) or words[:_LONGEST] or _file(distribution)


def _file(distribution: metadata.Distribution) -> str:
    for file in distribution.files or ():
        if re.match(r"(?i)licen[cs]e|copying", file.name):
            lines = [line.strip() for line in file.read_text().splitlines() if line.strip()]
            return f"{lines[0][:_LONGEST]} ({file.name})" if lines else "not named"
    return "not named"


def audit() -> str:
    """What pip-audit says, or why it says nothing."""
    if importlib.util.find_spec("pip_audit") is None or importlib.util.find_spec("pip_api") is None:
        return "pip-audit is not installed, so nothing was looked up. Install it with: pip install pip-audit"
    words = (
        sys.executable,
        "-m",
        "pip_audit",
        "--progress-spinner",
        "off",
        "--timeout",
        "10",
        "--format",
        "json",
    )
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_PATIENCE)
        found = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return _NO_NETWORK
    known = [one for one in found if "skip_reason" not in one]
    if not known:
        return _NO_NETWORK
    lines = [f"{one['name']} {one['version']}: {_weakness(weak)}" for one in known for weak in one["vulns"]]
    skipped = f", {len(found) - len(known)} could not be" if len(known) < len(found) else ""
    return "\n".join([*lines, f"{len(known)} packages were looked up{skipped}; {len(lines)} findings."])


_NO_NETWORK = "pip-audit's look-ups need a network, and there is none to PyPI: nothing was looked up."


def _weakness(found: dict[str, Any]) -> str:
    fixed = ", ".join(found["fix_versions"])
    return f"{found['id']}, {f'fixed in {fixed}' if fixed else 'not fixed yet'}"


def main() -> None:
    """Print both; what was found is for a person to judge."""
    packages = needed()
    width = max(map(len, packages), default=0)
    for name, distribution in packages.items():
        print(f"{name:{width}}  {distribution.version:16}  {licence(distribution)}")  # noqa: T201
    print(f"\n{audit()}")  # noqa: T201


if __name__ == "__main__":
    main()
