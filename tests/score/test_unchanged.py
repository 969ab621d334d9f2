"""A worker that is a process of its own scores by the packages that its job tells of, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from qeval.base.errors import QevalError
from qeval.base.messages import Job
from qeval.base.records import Scheme, Variant
from qeval.base.settings import Settings
from qeval.load.versions import versions
from qeval.score.unchanged import Unchanged


def a_job(versions: dict[str, str], **context: Any) -> Job:
    variant = Variant("v", "some/model", Scheme("fp16"))
    return Job("", "r", variant, {"versions": versions}, context, (), Settings(), "", "", "")


def test_packages_of_the_same_version_are_no_change() -> None:
    Unchanged(a_job(versions()))
    Unchanged(a_job({}, lm_eval=None))


@pytest.mark.parametrize(
    ("told", "context", "says"),
    [
        ({"torch": "0.1"}, {}, r"torch \S+ instead of 0\.1"),
        ({"no-such-package": "3"}, {}, "no-such-package is missing instead of 3"),
        ({}, {"lm_eval": "0.0.1"}, r"lm_eval \S+ instead of 0\.0\.1"),
    ],
)
def test_a_package_that_was_installed_anew_meanwhile_is_named(
    told: dict[str, str], context: dict[str, str], says: str
) -> None:
    """The model is one of the Hub's, of which no file here tells."""
    with pytest.raises(QevalError, match=says):
        Unchanged(a_job(told, **context))
