"""What the operating system refuses, as a sentence and a remedy."""

from __future__ import annotations

import errno

from qeval.base import reading
from qeval.base.errors import QevalError
from qeval.base.files import is_full


def refused(error: Exception) -> QevalError | None:
    """What the operating system said, or a library that hands its words on; None where it said nothing, as in
    what some libraries raise as OSError."""
    if is_full(error):
        where = getattr(error, "filename", None)
        what = f"The disk that holds {where} is full." if where is not None else "A disk is full."
        return QevalError(
            what, "Free some space there and run the same command again: what is finished is kept."
        )
    if not isinstance(error, OSError) or error.errno is None:
        return None
    where = str(error.filename) if error.filename is not None else "A file or a connection"
    if error.errno == errno.ENAMETOOLONG:
        return QevalError(f"{where[:60]}... is too long for a file name.", "Use a shorter one.")
    return QevalError(f"{where} cannot be used: {reading.told(error)}.", reading.remedy(error))
