"""The texts of MMLU's questions, counted in the real ones, and what they cost.

They need a mirror of the data sets: QEVAL_DATASETS_DIR names it.
"""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from qeval.base.records import Item, Samples
from qeval.base.sizes import MMLU_SUBJECTS, TASK_TEXTS, Shared
from qeval.compare import stats
from qeval.store.clusters import clusters, count_texts

MIRROR = os.environ.get("QEVAL_DATASETS_DIR", "")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not MIRROR, reason="QEVAL_DATASETS_DIR names no mirror")]


def asked(doc):
    """A question as MMLU's tasks put it."""
    choices = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", doc["choices"], strict=True))
    return f"{doc['question'].strip()}\n{choices}\nAnswer:"


@pytest.fixture(scope="module")
def found():
    """The clusters of each subject, by its task's name."""
    folder = Path(MIRROR) / "cais" / "mmlu"
    return {name: of_subject(folder / name.removeprefix("mmlu_") / "test.parquet") for name in MMLU_SUBJECTS}


def of_subject(file):
    docs = pq.ParquetFile(file).read().to_pylist()
    keys = np.arange(len(docs)).astype(str)
    empty, ones = np.full(len(docs), ""), np.ones(len(docs))
    samples = Samples(keys, keys, keys, empty, ones, ones, empty, empty, empty, np.full(len(docs), None))
    return clusters(
        samples, {key: Item(key, "", asked(doc)) for key, doc in zip(keys, docs, strict=True)}, docs
    )


@pytest.mark.parametrize(
    ("name", "items", "texts"),
    [
        ("mmlu_high_school_us_history", 204, 66),
        ("mmlu_high_school_world_history", 237, 75),
        ("mmlu_high_school_european_history", 165, 59),
    ],
)
def test_histories_quote_a_passage_for_three_questions(found, name, items, texts):
    assert (len(found[name]), count_texts(found[name])) == (items, texts)


def test_law_medicine_and_the_others_share_almost_none(found):
    texts = {name: (count_texts(cluster), len(cluster)) for name, cluster in found.items()}
    for name in ("mmlu_professional_law", "mmlu_professional_medicine", "mmlu_moral_scenarios"):
        assert texts[name][0] > 0.97 * texts[name][1]
    rest = [pair for name, pair in texts.items() if name not in TASK_TEXTS]
    assert all(count >= 0.89 * n for count, n in rest)
    assert sum(count for count, _ in rest) > 0.99 * sum(n for _, n in rest)


def together(cluster):
    """How many items an item's text has on average."""
    _, sizes = np.unique(cluster[cluster != ""], return_counts=True)
    return (np.square(sizes).sum() + np.count_nonzero(cluster == "")) / len(cluster)


def test_what_the_plan_knows_of_them_is_what_there_is(found):
    counted = {name: Shared(count_texts(found[name]), round(together(found[name]), 2)) for name in TASK_TEXTS}
    assert counted == TASK_TEXTS
    assert max(together(cluster) for name, cluster in found.items() if name not in TASK_TEXTS) < 1.25


def changes(random, codes, together, churn):
    """0/1 columns of which a share `churn` differs, in a share `together` of the texts as one."""
    drawn, texts = random.random(len(codes)), int(codes.max()) + 1
    as_one = (random.random(texts) < together)[codes]
    drawn = np.where(as_one, random.random(texts)[codes], drawn)
    return (drawn < churn / 2).astype(float), (drawn > 1 - churn / 2).astype(float)


@pytest.mark.parametrize("together", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("churn", [0.05, 0.1])
def test_texts_make_mmlus_intervals_at_most_fifteen_per_cent_wider(found, together, churn):
    random = np.random.default_rng(4)
    names = [
        f"{task}/{name or place}" for task, some in found.items() for place, name in enumerate(some.tolist())
    ]
    _, codes = np.unique(names, return_inverse=True)
    strata = np.repeat(np.arange(57), [len(some) for some in found.values()])
    pooled, mean = [], []
    for _ in range(20):
        columns = changes(random, codes, together, churn)
        alone = stats.paired_interval(*columns, level=0.9)
        shared = stats.paired_interval(*columns, None, codes, 0.9)
        wide = max(alone[2], shared[2]) - min(alone[1], shared[1])
        pooled.append(wide / (alone[2] - alone[1]))
        alone, shared = (stats.stratified_interval(*columns, strata, 0.9, one) for one in (None, codes))
        mean.append((shared[2] - shared[1]) / (alone[2] - alone[1]))
    assert 1 <= np.mean(pooled) < 1.1
    assert 1 <= np.mean(mean) < 1.15
