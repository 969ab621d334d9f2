"""A copy of a repository of the Hub in a folder, whole or not there at all: what a machine without a network
reads instead.

    <to>/<org>/<name>                     a data set: `--datasets-dir <to>` reads it
    <to>/models/<org>/<name>[--revision]  a model or a checkpoint: `--model` reads the folder
    <to>/fetched.json                     which commit each of them is of, and what each file holds
    <to>/.changed/<place>/                files of a copy as somebody had changed them, before fetched again
    <to>/.partial/                        what is being fetched; a broken call goes on from its whole files
"""

from __future__ import annotations

import contextlib
import glob
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from msgspec.structs import replace

from qeval.base import numbers
from qeval.base.errors import QevalError
from qeval.base.files import is_full, link_or_copy
from qeval.base.names import slug
from qeval.load.hub_book import MODELS, Copy, Kind, changed, known, length, note, strange, sum_of, whole
from qeval.load.source import hub_refusal

PARTIAL = ".partial"
CHANGED = ".changed"
_SPARE = 64 << 20
"""Bytes that stay free on the disk."""


class File(msgspec.Struct, frozen=True):
    """A file of a repository: its size, and what proves its content: the SHA-256 of a large file, else the
    id that git gives it, "" where the Hub told neither."""

    name: str
    size: int
    sha256: str = ""
    blob: str = ""


@dataclass(frozen=True)
class Wanted:
    """A repository to be copied to `place` below the folder; `choose` picks the files out of all there are,
    and `finish` may change the folder before it appears. `parts` says which of it were chosen, so that a
    later call can tell whether they are there; empty for all of it. `pinned` is the revision that was asked
    for, where `revision` is the commit that it means."""

    kind: Kind
    repo: str
    place: str
    choose: Callable[[Sequence[str]], Sequence[str]]
    revision: str | None = None
    parts: tuple[str, ...] = ()
    finish: Callable[[Path], None] | None = None
    pinned: str | None = None


def place_of(repo: str, revision: str | None) -> str:
    """Where a model lies below the folder; each revision apart, for branches hold other weights."""
    return f"{MODELS}/{repo}{f'--{slug(revision)}' if revision else ''}"


def fetch(wanted: Wanted, to: Path, progress: Callable[[str], None]) -> tuple[Copy, bool]:
    """The copy of a repository below `to`, and whether it was there already.

    The revision is resolved to a commit first, and every file is of it. What is there of another commit, or
    of fewer parts or files, is replaced once the new copy is whole and each file holds what the Hub says.
    What an earlier call fetched of it stays wanted.

    Files of it that were changed since are put aside. Raises QevalError for a folder in its place that no
    call fetched, or that holds a file of which that is so, for a repository, revision or file that
    is not there, for one that may not be read, for a connection that breaks for good, and for a disk that is
    full or cannot be written to.
    """
    with _explained(wanted, to):
        there = known(to, wanted.place)
        _check_place(wanted, to, there)
        commit, files = _listed(wanted, there)
        if there is not None and _holds(to, there, commit, wanted.parts, files):
            return there, True
        _check_files(to, there)
        partial = to / PARTIAL / f"{_begun(wanted)}{commit[:16]}"
        _check_space(wanted, files, partial, to)
        progress(f"{wanted.repo}: {len(files)} files, {numbers.in_bytes(sum(file.size for file in files))}")
        _seed(to / wanted.place, partial, files)
        _download(wanted, commit, files, partial)
        _verify(wanted, files, partial)
        if wanted.finish is not None:
            wanted.finish(partial)
        copy = _copy(wanted, commit, files, partial)
        _check_place(wanted, to, there)
        _check_files(to, there)
        _put_aside(to, there, progress)
        note(to, _between(there, copy))
        _appear(partial, to / wanted.place, to)
        _forget_begun(wanted, to)
        note(to, copy)
    return copy, False


def _check_place(wanted: Wanted, to: Path, there: Copy | None) -> None:
    """Refuse to replace what no call fetched: it may be somebody's only copy."""
    target = to / wanted.place
    if target.is_symlink() or (there is None and target.exists()):
        raise QevalError(
            f"{target} is there already, and qeval fetch did not make it.",
            "Move it elsewhere, or name another place with --to.",
        )


def _check_files(to: Path, there: Copy | None) -> None:
    """Refuse to replace a folder with a file that no call wrote."""
    if there is not None and (found := strange(to, there)):
        rest = len(found) - 1
        more = f" and {rest} more file{'s' * (rest > 1)}" if rest else ""
        raise QevalError(
            f"{to / there.place} would be replaced, but it holds {found[0]!r}{more}, which qeval fetch did"
            " not write.",
            "Move what is yours elsewhere, or name another place with --to.",
        )


def _put_aside(to: Path, there: Copy | None, progress: Callable[[str], None]) -> None:
    """Keep the files of a copy that somebody, or a fault of the disk, changed since it was fetched."""
    if there is None:
        return
    for name in changed(to, there):
        path = to / there.place / name
        kept = to / CHANGED / there.place / f"{name}.{sum_of(path)[:8]}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.rename(kept)
        progress(f"{path} was changed since it was fetched: what it held is kept as {kept}")


def _between(there: Copy | None, copy: Copy) -> Copy:
    """What is noted while a copy takes another's place: the files of both are ours, should this end there."""
    before = there.files if there is not None else {}
    return replace(copy, commit="", files={**before, **copy.files})


def _copy(wanted: Wanted, commit: str, files: Sequence[File], partial: Path) -> Copy:
    """What is noted of a copy that was verified. A small file may have been finished since."""
    return Copy(
        wanted.kind,
        wanted.repo,
        wanted.place,
        commit,
        {file.name: (partial / file.name).stat().st_size for file in files},
        wanted.revision,
        wanted.parts,
        {file.name: file.sha256 or sum_of(partial / file.name) for file in files},
        wanted.pinned,
    )


def _listed(wanted: Wanted, before: Copy | None) -> tuple[str, tuple[File, ...]]:
    """The commit that is meant and the files of it that are wanted, or were before."""
    from huggingface_hub import HfApi

    info = HfApi().repo_info(
        wanted.repo, repo_type=wanted.kind, revision=wanted.revision, files_metadata=True, timeout=30
    )
    there = {one.rfilename: _file(one) for one in info.siblings or ()}
    names = set(wanted.choose(sorted(there)))
    chosen = tuple(there[name] for name in sorted(names | ({*(before.files if before else ())} & set(there))))
    if not names:
        raise QevalError(
            f"{wanted.repo} holds none of the files that are needed.",
            f"Look at them: {_page(wanted)}/tree/{info.sha}",
        )
    for file in chosen:
        if ".." in PurePosixPath(file.name).parts or PurePosixPath(file.name).is_absolute():
            raise QevalError(
                f"{wanted.repo} names a file outside itself: {file.name[:60]!r}.",
                f"Do not use it; look at what it is: {_page(wanted)}",
            )
    return str(info.sha), chosen


def _file(told: Any) -> File:
    lfs = told.lfs or {}
    large = lfs.get("sha256", "") if isinstance(lfs, dict) else lfs.sha256
    return File(told.rfilename, told.size or 0, large or "", told.blob_id or "")


def _holds(to: Path, copy: Copy, commit: str, parts: tuple[str, ...], files: Sequence[File]) -> bool:
    """Whether a copy is of the commit, has the parts and the files, and each of them holds what it did."""
    if copy.commit != commit or (copy.parts and not (parts and set(parts) <= set(copy.parts))):
        return False
    return {file.name for file in files} <= set(copy.files) and whole(to, copy)


def _check_space(wanted: Wanted, files: Sequence[File], partial: Path, to: Path) -> None:
    partial.mkdir(parents=True, exist_ok=True)
    missing = sum(file.size for file in files if length(partial / file.name) != file.size)
    free = shutil.disk_usage(to).free
    if missing + _SPARE > free:
        raise QevalError(
            f"{wanted.repo} takes {numbers.in_bytes(missing)} more, and the disk that holds {to} has"
            f" {numbers.in_bytes(free)} free.",
            "Free some space there, or name another place with --to.",
        )


def _seed(before: Path, partial: Path, files: Sequence[File]) -> None:
    """Have the large files of an earlier copy in the new one; huggingface_hub takes those whose hash is the
    right one, and fetches the others."""
    for file in files:
        if file.sha256 and length(before / file.name) == file.size and not (partial / file.name).exists():
            link_or_copy(before / file.name, partial / file.name)


def _download(wanted: Wanted, commit: str, files: Sequence[File], partial: Path) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(
        wanted.repo,
        repo_type=wanted.kind,
        revision=commit,
        local_dir=partial,
        allow_patterns=[glob.escape(file.name) for file in files],
    )


def _verify(wanted: Wanted, files: Sequence[File], partial: Path) -> None:
    """Raises QevalError where a file is missing or holds something else; that one is removed, so that the
    next call fetches it again."""
    for file in files:
        path = partial / file.name
        if length(path) == file.size and _proved(path, file.sha256 or file.blob):
            continue
        path.unlink(missing_ok=True)
        raise QevalError(
            f"{file.name} of {wanted.repo} did not arrive complete.",
            "Run the same command again: complete files are not fetched again.",
        )


def _proved(path: Path, told: str) -> bool:
    """Whether a file's hash is the one that the Hub tells, if it tells any."""
    return not told or sum_of(path, told) == told


def _appear(partial: Path, target: Path, to: Path) -> None:
    """Put a whole copy in its place, by one rename where nothing is there yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = to / PARTIAL / f"old--{partial.name}"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _begun(wanted: Wanted) -> str:
    """How the folder is called in which a repository waits until it is whole; the commit follows."""
    return f"{wanted.kind}--{wanted.repo.replace('/', '--')}--"


def _forget_begun(wanted: Wanted, to: Path) -> None:
    """Remove what was begun of other commits of a repository that is whole now."""
    for left in (to / PARTIAL).glob(f"{glob.escape(_begun(wanted))}*"):
        shutil.rmtree(left, ignore_errors=True)
    with contextlib.suppress(OSError):
        (to / PARTIAL).rmdir()


@contextlib.contextmanager
def alone(to: Path) -> Iterator[None]:
    """Within it, no other command fetches to the same folder. Raises QevalError where another one does, or
    the folder cannot be made."""
    from filelock import FileLock, Timeout

    try:
        to.mkdir(parents=True, exist_ok=True)
        with FileLock(to / ".fetching.lock", timeout=0):
            yield
    except Timeout as error:
        raise QevalError(
            f"Another command is fetching to {to}.", "Wait for it, or name another place with --to."
        ) from error
    except OSError as error:
        raise _unwritable(to, error) from error


def _unwritable(to: Path, error: OSError) -> QevalError:
    if is_full(error):
        return QevalError(
            f"The disk that holds {to} is full.",
            "Free some space there and run the same command again: complete files are not fetched again.",
        )
    return QevalError(f"{to} cannot be written: {error.strerror or error}.", "Name another place with --to.")


@contextlib.contextmanager
def _explained(wanted: Wanted, to: Path) -> Iterator[None]:
    """Turn what huggingface_hub and the system raise into sentences with a remedy."""
    try:
        yield
    except QevalError:
        raise
    except Exception as error:
        raise explained(wanted, to, error) from error


def refuse_offline() -> None:
    """Raise QevalError where the Hub may not be asked, before it is found out what would be asked for."""
    from qeval.load.source import offline_by

    if offline_by() is not None:
        raise _offline()


def _offline() -> QevalError:
    from qeval.load.source import OFFLINE, offline_by

    return QevalError(
        f"{offline_by() or OFFLINE[0]} is set, so nothing can be fetched.",
        "Unset it and run the same command again, or run it where there is a network and copy the folder"
        " here.",
    )


def explained(wanted: Wanted, to: Path, error: Exception) -> QevalError:
    """What went wrong with a repository, in a sentence, and what helps."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    causes = list(_causes(error))
    if any(isinstance(one, OfflineModeIsEnabled) for one in causes):
        return _offline()
    for one in causes:
        refusal = hub_refusal(wanted.repo, wanted.revision, one, wanted.kind)
        if refusal is not None:
            return refusal
    if any(isinstance(one, HFValidationError) for one in causes):
        return QevalError(
            f"{wanted.repo!r} is not the name of a repository on the Hub.", "A Hub id looks like org/name."
        )
    answered = next((one for one in causes if isinstance(one, HfHubHTTPError)), None)
    if answered is not None and answered.response is not None:
        return _answer(wanted, answered.response.status_code)
    system = next((one for one in causes if isinstance(one, OSError) and one.errno is not None), None)
    if isinstance(system, OSError) and (is_full(system) or system.filename is not None):
        return _unwritable(to, system)
    return _broken(wanted, causes)


def _broken(wanted: Wanted, causes: Sequence[BaseException]) -> QevalError:
    """A connection that was never made, or that did not last."""
    told = " ".join(str(causes[-1]).split())[:200] or type(causes[0]).__name__
    if any(type(one).__name__ == "ConnectError" for one in causes):  # whichever library speaks HTTP
        return QevalError(
            f"The Hub cannot be reached ({told}), so {wanted.repo} was not fetched.",
            "Check the network, and HF_ENDPOINT where it is set, then run the same command again.",
        )
    return QevalError(
        f"The connection to the Hub broke while {wanted.repo} was fetched ({told}).",
        "Run the same command again: complete files are not fetched again.",
    )


def _answer(wanted: Wanted, status: int) -> QevalError:
    """An answer that is none of those that huggingface_hub knows by name."""
    if status in {401, 403}:
        return QevalError(
            f"The Hub does not let {wanted.repo} be read (it answers {status}).",
            f"Check that the token in HF_TOKEN is valid and may read {_page(wanted)}.",
        )
    return QevalError(
        f"The Hub answers {status} for {wanted.repo}.",
        "Run the same command again later: complete files are not fetched again.",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from, the innermost last."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _page(wanted: Wanted) -> str:
    return f"https://huggingface.co/{'datasets/' if wanted.kind == 'dataset' else ''}{wanted.repo}"
