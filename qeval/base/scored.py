"""What scored a cell, kept with it wherever it goes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scored:
    """By what a cell was scored, wherever it is used since: the version of qeval, the moment it was finished
    (ISO 8601 UTC), the device, and the versions of other packages. Empty is what is not known."""

    qeval: str = ""
    when: str = ""
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
