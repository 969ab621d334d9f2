"""Whether a variant's files are still those that its key tells of, while it is loaded and scored."""

from __future__ import annotations

from pathlib import Path

from qeval.base import contents
from qeval.base.errors import QevalError
from qeval.base.hashing import digest
from qeval.base.messages import Job
from qeval.load import resolve
from qeval.score.clock import phase


class Unchanged:
    """The local files of a job's variant, watched from before it is loaded until its last cell is stored."""

    def __init__(self, job: Job) -> None:
        self.job = job
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
