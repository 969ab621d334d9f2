"""Whether a variant's files, and the packages, are still those that its key tells of, while it is scored."""

from __future__ import annotations

from pathlib import Path

from qeval.base import contents
from qeval.base.errors import QevalError
from qeval.base.hashing import digest
from qeval.base.messages import Job
from qeval.load import resolve
from qeval.load.versions import version_of
from qeval.score.clock import phase


class Unchanged:
    """The local files of a job's variant, watched from before it is loaded until its last cell is stored."""

    def __init__(self, job: Job) -> None:
        self.job = job
        _refuse_other_versions(job)
        with phase("hashing"):
            self.seen = self._stamps()
            if self.seen:
                self._compare()

    def check(self) -> None:
        """Raise QevalError where a file is not what it was when the key was made; a new date is no change."""
        with phase("hashing"):
            self._check()

    def _check(self) -> None:
        now = self._stamps()
        if now != self.seen:
            self._compare()
            self.seen = now

    @property
    def _mirror(self) -> Path | None:
        return Path(self.job.settings.datasets_dir) if self.job.settings.datasets_dir else None

    def _stamps(self) -> dict[Path, str]:
        return {path: contents.stamp(path) for path in resolve.local_files(self.job.variant, self._mirror)}

    def _compare(self) -> None:
        variant = self.job.variant
        if digest(resolve.identity(variant, Path(self.job.cache_dir), self._mirror)) != digest(
            self.job.identity
        ):
            raise QevalError(
                f"The files of {variant.name} changed while it was scored: nothing more of it is kept.",
                "Run the same command again when they are complete.",
            )


def _refuse_other_versions(job: Job) -> None:
    """Raise QevalError where a package is of another version than the job's key tells: it was installed anew
    since the run began, for a worker is a process of its own."""
    told = job.identity.get("versions", {})
    if job.context.get("lm_eval") is not None:
        told = {**told, "lm_eval": job.context["lm_eval"]}
    here = {name: version_of(name) for name in told}
    others = [
        f"{name} {here[name] or 'is missing'} instead of {told[name]}"
        for name in told
        if here[name] != told[name]
    ]
    if others:
        raise QevalError(
            f"Packages changed since the run began: {', '.join(others)}.", "Run the same command again."
        )
