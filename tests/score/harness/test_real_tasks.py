"""The tasks of leaderboard-v1 on real data, request by request against lm-eval.

They need a mirror of the data sets: QEVAL_DATASETS_DIR names it. QEVAL_TOKENIZER may name a directory with a
real tokenizer; otherwise one of the tests' own serves.
"""

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from qeval.base.records import Task
from qeval.score.harness import door

MIRROR = os.environ.get("QEVAL_DATASETS_DIR", "")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(not MIRROR, reason="QEVAL_DATASETS_DIR names no mirror"),
]

SUITE = {"arc_challenge": 25, "hellaswag": 10, "mmlu_world_religions": 5, "truthfulqa_mc2": 0, "wikitext": 0}


@pytest.fixture(scope="module")
def real_tokenizer(plain_tokenizer):
    from transformers import AutoTokenizer

    place = os.environ.get("QEVAL_TOKENIZER")
    return AutoTokenizer.from_pretrained(place) if place else plain_tokenizer


@pytest.mark.parametrize(("name", "shots"), SUITE.items())
def test_requests_are_those_of_lm_eval(name, shots, real_tokenizer):
    """lm-eval builds with its own template function and its own seeds; we only point it to the mirror."""
    import datasets
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    from qeval.score.harness import catalogue, sources, tokens
    from qeval.score.harness.tame import replaced

    (part,) = door.prepare(
        [Task(name, "", num_fewshot=shots, limit=60)],
        real_tokenizer,
        max_length=2048,
        datasets_dir=Path(MIRROR),
    )
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    config = load_yaml(catalogue.catalogue().files[name])
    if name == "wikitext":
        config.pop("training_split")  # mirrors may do without it: no examples are drawn
    mirrored = sources.mirrored(config["dataset_path"], Path(MIRROR))
    load = datasets.load_dataset
    with replaced(datasets, "load_dataset", lambda name, **_: load(str(mirrored), name)):
        task = ConfigurableTask(config={key: value for key, value in config.items() if key != "tag"})
    task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(1234)
    task.build_all_requests(limit=60)

    assert [instance.args for instance in task.instances] == list(part.content.arguments())
    if part.output_type != "loglikelihood_rolling":
        encoder = tokens.encoder(real_tokenizer)
        pairs = [instance.args for instance in task.instances]
        for request, (context, answer) in zip(part.requests, tokens._slowly(encoder, pairs), strict=True):
            assert np.array_equal(request.tokens, np.concatenate((context, answer))[-2049:])
            assert request.n_scored == len(answer)


def test_mmlu_is_57_subjects_in_four_categories(real_tokenizer):
    prepared = door.prepare(
        [Task("mmlu", "", num_fewshot=5, limit=1)], real_tokenizer, max_length=2048, datasets_dir=Path(MIRROR)
    )
    categories = [part.task.category for part in prepared]
    assert len(prepared) == 57
    assert {name: categories.count(name) for name in categories} == {
        "stem": 19,
        "other": 13,
        "social_sciences": 12,
        "humanities": 13,
    }
    assert sum(part.n_available for part in prepared) == 14042
    assert {part.task.chance for part in prepared} == {0.25}
