"""How qeval came here (checkout, wheel, address, index): what installs more of it, and which commit it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from qeval import __version__

_CHECKOUT = Path(__file__).parents[2]
_COMMIT = re.compile(r"\+g([0-9a-f]{7,40})(\.dirty)?$")
_SECONDS = 5


class Origin(NamedTuple):
    """Where qeval was installed from: `kind` is "checkout", "wheel", "address" or "index"; `place` is what
    pip was given, "" for the index."""

    kind: str
    place: str = ""


def origin() -> Origin:
    """How qeval came here: by what lies beside it, else by what pip noted (PEP 610)."""
    if (_CHECKOUT / "pyproject.toml").is_file():
        return Origin("checkout", str(_CHECKOUT))
    told = _direct_url()
    url = str(told.get("url", ""))
    if "vcs_info" in told:
        info = told["vcs_info"]
        return Origin("address", f"{info.get('vcs', 'git')}+{url}@{info.get('commit_id', 'HEAD')}")
    if "dir_info" in told:
        return Origin("checkout", url.removeprefix("file://"))
    return Origin("wheel", url) if url else Origin("index")


def _direct_url() -> dict[str, Any]:
    """What pip noted of where it installed qeval from; nothing for the index, or what is not installed."""
    from importlib import metadata  # costs 20 ms at start-up

    try:
        told = json.loads(metadata.distribution("qeval").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


NOT_ISOLATED = "pip install hatchling setuptools wheel ninja && pip install --no-build-isolation "
"""How to install what builds against packages that are there: pip then brings nothing to build with."""


def command(extra: str, *, isolated: bool = True) -> str:
    """The command that installs an extra of the qeval that is here. In a checkout it is run there."""
    words = "pip install " if isolated else NOT_ISOLATED
    found = origin()
    if found.kind == "checkout":
        return f"{words}'.[{extra}]'"
    return f"{words}'qeval[{extra}]{f' @ {found.place}' if found.place else ''}'"


def remedy(extra: str, *, isolated: bool = True) -> str:
    """The sentence that says how to install an extra."""
    where = "In qeval's checkout, install" if origin().kind == "checkout" else "Install"
    return f"{where} it with: {command(extra, isolated=isolated)}"


def remedy_here(extra: str, *, isolated: bool = True) -> str:
    """The command as it can be typed on this very machine, for what is shown and not kept."""
    found = origin()
    told = command(extra, isolated=isolated)
    if found.kind != "checkout" or Path(found.place) == Path.cwd():
        return told
    import shlex

    return f"cd {shlex.quote(found.place)} && {told}"


def version() -> str:
    """The version, with the commit behind it (0.1.0+g0123456789ab) where git tells it; `.dirty` where files
    of the checkout were changed since. Without a commit where what runs is a copy of a folder, which may have
    gone on since, and where git does not tell whether files were changed."""
    found = origin()
    if found.kind == "address":
        return f"{__version__}+g{found.place.rpartition('@')[2][:12]}"
    if found.kind != "checkout" or not _runs_in(found.place) or not (Path(found.place) / ".git").exists():
        return __version__
    commit = _git(found.place, "rev-parse", "HEAD")
    if commit is None or not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        return __version__
    asked = ("status", "--porcelain", "--untracked-files=normal", "--", "qeval", "tasks", "pyproject.toml")
    changed = _git(found.place, *asked)
    if changed is None:
        return __version__
    return f"{__version__}+g{commit[:12]}{'.dirty' if changed else ''}"


def _runs_in(folder: str) -> bool:
    """Whether the code that runs is that of a folder, and no copy of it."""
    told = _direct_url().get("dir_info")
    return folder == str(_CHECKOUT) or (isinstance(told, dict) and told.get("editable") is True)


def _git(folder: str, *words: str) -> str | None:
    """What git says of a folder; None where it is not there or refuses."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", folder, *words],
            env=env,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def url() -> str:
    """The address of the repository, as pyproject.toml tells it; "" where it tells none."""
    found = _CHECKOUT / "pyproject.toml"
    if found.is_file():
        import tomllib

        told = tomllib.loads(found.read_text("utf-8")).get("project", {}).get("urls", {})
        named = {str(key).lower(): str(value) for key, value in told.items()}
    else:
        from importlib import metadata

        try:
            lines = metadata.metadata("qeval").get_all("Project-URL") or []
        except metadata.PackageNotFoundError:
            return ""
        named = {
            key.strip().lower(): value.strip() for key, _, value in (line.partition(",") for line in lines)
        }
    return next((named[key] for key in ("repository", "source", "homepage") if named.get(key)), "")


def same_version(told: str) -> tuple[str, str]:
    """The command that installs the version a run was made with, the last of several, and what else is to be
    known of it."""
    *others, told = told.split(", ")
    command, note = _installs(told)
    more = f"parts of the run were scored by {', '.join(others)}" if others else ""
    return command, "; ".join(filter(None, (note, more)))


def _installs(told: str) -> tuple[str, str]:
    """The same of one version."""
    found = _COMMIT.search(told)
    if not told or found is None:
        return ("pip install .", f"in a checkout of version {told}") if told else ("", "")
    note = "it had changes that are in no commit" if found[2] else ""
    if url():
        return f"pip install 'qeval @ git+{url()}@{found[1]}'", note
    return f"git checkout {found[1]} && pip install .", "; ".join(
        filter(None, ("in a checkout of qeval", note))
    )
