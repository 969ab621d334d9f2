"""Hold a built sdist and wheel against the files that git tracks: tests/dists.py FOLDER (release-check)."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

ROOT = Path(__file__).parents[1]
ADDED = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def main(folder: Path) -> list[str]:
    """What is wrong, in sentences."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = set(listed.stdout.split("\0")) - {""}
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return [*_sdist(sdist, tracked), *_wheel(wheel, tracked)]


def _sdist(path: Path, tracked: set[str]) -> list[str]:
    with tarfile.open(path) as file:
        held = {one.name.split("/", 1)[1] for one in file.getmembers() if one.isfile()}
    return _apart(path, held, tracked | {"PKG-INFO"})


def _wheel(path: Path, tracked: set[str]) -> list[str]:
    with zipfile.ZipFile(path) as file:
        held = set(file.namelist())
        (about,) = {name.split("/")[0] for name in held if ".dist-info/" in name}
        metadata = message_from_string(file.read(f"{about}/METADATA").decode())
        entry = file.read(f"{about}/entry_points.txt").decode()
    wanted = {name for name in tracked if name.startswith("qeval/")}
    wanted |= {f"qeval/{name}" for name in tracked if name.startswith("tasks/")}
    wrong = _apart(path, held, wanted | {f"{about}/{name}" for name in ADDED})
    return [
        *wrong,
        *_metadata(metadata),
        *([] if "qeval = qeval.cli.main:main" in entry else [f"No command: {entry}"]),
    ]


def _apart(path: Path, held: set[str], wanted: set[str]) -> list[str]:
    missing, stray = sorted(wanted - held), sorted(held - wanted)
    return [f"{path.name} lacks {name}" for name in missing] + [f"{path.name} has {name}" for name in stray]


def _metadata(metadata: Message) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(metadata.get_all("Provides-Extra", []))
    text = re.sub(r"```.*?```|`[^`\n]*`", "", str(metadata.get_payload()), flags=re.DOTALL)
    wrong = [
        f"README links to {to}"
        for to in re.findall(r"\]\(([^)\s]+)\)", text)
        if not re.match(r"#|https?:", to)
    ]
    if metadata["License-Expression"] != project["license"] or "LICENSE" not in metadata.get_all(
        "License-File", []
    ):
        wrong.append("The licence is not told")
    if extras != set(project["optional-dependencies"]):
        wrong.append(f"The extras are {sorted(extras)}")
    return wrong


if __name__ == "__main__":
    if found := main(Path(sys.argv[1])):
        raise SystemExit("\n".join(found))
