"""What workers have to do that a run's command does not start itself: written down by one, found by many.

<runs>/<run id>/work/plan.json               the jobs, and the versions that they were planned by
<runs>/<run id>/work/holders/                who is at work (`store.leases`)
<runs>/<run id>/work/<variant>/lead.1.lease  who leads the variant, in turn
<runs>/<run id>/work/<variant>/packing.json  how it is fed, as the first who led it found
<runs>/<run id>/work/<variant>/result.<mark>.json   what came of it, by the plan of that mark
<runs>/<run id>/work/<variant>/failed.<mark>.json   the same, where that is a failure
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import msgspec

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.files import disk_errors, write_atomic
from qeval.base.messages import Job
from qeval.base.names import slugged
from qeval.base.packing import Packing
from qeval.base.records import Result
from qeval.store.leases import Holder, Holders

PLAN_FILE = "plan.json"
_Read = TypeVar("_Read")


class Part(msgspec.Struct, frozen=True):
    """A variant to be scored; not before there is a result of the variant called `after`, if any."""

    job: Job
    after: str = ""


class Plan(msgspec.Struct, frozen=True):
    """All that is to be done, in the order in which it is begun. `versions` are those of whatever can change
    a number; `mark` is drawn for each plan and tells one from another at the same place. `made_in` is the
    directory that it was made in, "" where that is not known; `paths` are those that it names, as typed: they
    existed there."""

    parts: tuple[Part, ...]
    versions: dict[str, str]
    mark: str
    made_in: str = ""
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """The folder `work` of a run."""

    path: Path

    def plan(self) -> Plan | None:
        """What is to be done; None where nobody planned anything. Raises QevalError for a damaged plan."""
        try:
            data = reading.content(self.path / PLAN_FILE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise QevalError(f"{error.filename}: {reading.told(error)}.", reading.remedy(error)) from error
        try:
            return msgspec.json.decode(data, type=Plan)
        except msgspec.MsgspecError as error:
            raise QevalError(
                f"{self.path / PLAN_FILE} is damaged, or of another version of qeval: {error}.",
                "Call `qeval run ... --prepare` again, with the version that its workers have.",
            ) from error

    def write(self, plan: Plan) -> None:
        """Plan this, whatever was planned before."""
        with disk_errors(self.path):
            write_atomic(self.path / PLAN_FILE, msgspec.json.encode(plan))

    @cached_property
    def holders(self) -> Holders:
        """Those who are at work."""
        return Holders(self.path / "holders")

    def lead(self, variant: str) -> Path:
        """What the leases of leading a variant are named after."""
        return self._folder(variant) / "lead"

    def result(self, variant: str, mark: str) -> Result | None:
        """What came of a variant by the plan of this mark; None where nothing did yet. A failure takes no
        other result's place, whoever came first."""
        files = (self._result(variant, mark, failed=failed) for failed in (False, True))
        return next(filter(None, (self._read(file, Result) for file in files)), None)

    def keep(self, result: Result, mark: str) -> None:
        """A variant has its result by the plan of this mark."""
        file = self._result(result.variant.name, mark, failed=result.status == "failed")
        with disk_errors(self.path):
            write_atomic(file, msgspec.json.encode(result))

    def packing(self, variant: str) -> Packing | None:
        """How a variant is fed, as far as a worker found out."""
        return self._read(self._folder(variant) / "packing.json", Packing)

    def keep_packing(self, variant: str, packing: Packing) -> None:
        """A variant is fed like this."""
        with disk_errors(self.path):
            write_atomic(self._folder(variant) / "packing.json", msgspec.json.encode(packing))

    def helpers(self, variant: str) -> list[Holder]:
        """Who helps with a variant now."""
        return [one for one in self.holders.at_work() if one.variant == variant and one.part == "help"]

    def forget(self) -> None:
        """Nothing is planned any more: the plan goes first, lest it be found without what was done of it."""
        with disk_errors(self.path):
            (self.path / PLAN_FILE).unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def clear_after(self, holder: str) -> None:
        """Remove what a holder that has ended told of itself, where nothing is planned any more: whoever
        finished the run had not seen it yet, or took it for dead."""
        if (self.path / PLAN_FILE).exists():
            return
        self.holders.forget(holder)
        for folder in (self.holders.folder, self.path):
            with contextlib.suppress(OSError):  # others are there too
                folder.rmdir()

    def _result(self, variant: str, mark: str, *, failed: bool) -> Path:
        return self._folder(variant) / f"{'failed' if failed else 'result'}.{mark}.json"

    def _folder(self, variant: str) -> Path:
        return self.path / slugged(variant)

    @staticmethod
    def _read(file: Path, kind: type[_Read]) -> _Read | None:
        try:
            return msgspec.json.decode(reading.content(file), type=kind)
        except (OSError, msgspec.MsgspecError):
            return None
