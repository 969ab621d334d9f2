"""A data set of a Hub that does not answer is looked for in the cache at once."""

from __future__ import annotations

import pytest

from qeval.base.errors import QevalError
from qeval.base.records import Task
from qeval.score.harness.leaves import Leaf
from qeval.score.harness.sources import opener

pytestmark = pytest.mark.torch  # `datasets` imports it

LEAF = Leaf(Task("arc", "acc"), {}, None)


@pytest.mark.parametrize("answers", [True, False])
def test_a_hub_that_does_not_answer_is_not_asked_again(answers: bool, monkeypatch) -> None:
    from datasets import config
    from huggingface_hub import constants

    seen: list[tuple[str, bool, bool]] = []

    def load(path: str, **_):
        seen.append((path, config.HF_HUB_OFFLINE, constants.is_offline_mode()))
        raise ConnectionError("no route")

    monkeypatch.setattr(config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr("qeval.score.harness.sources.hub_answers", lambda *_: answers)
    opened = opener(LEAF, None)
    for path in ("org/arc", "json"):
        with pytest.raises(QevalError, match="There is no network, and the data set") as caught:
            opened(path)
        assert "--datasets-dir DIR" in caught.value.hint
    assert seen == [("org/arc", not answers, not answers), ("json", False, False)]
    assert (config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE) == (False, False)
