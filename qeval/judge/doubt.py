"""Why a variant may not pass though no rule is broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Doubt:
    """Why a variant may not pass, in a sentence with its remedy.

    `task` is the row concerned, "" for the variant as a whole; `allowed` the option by which the policy lets
    it pass all the same, "" where it does not. `status` is what the variant is until then: data are missing,
    or all are there and decide nothing about the scheme that was named.
    """

    variant: str
    text: str
    task: str = ""
    allowed: str = ""
    status: Literal["MISSING", "INCONCLUSIVE"] = "MISSING"
