"""The tests' own tasks through lm_eval.simple_evaluate and through qeval, on a tiny model."""

import logging

import numpy as np

from qeval.base.records import Task
from qeval.score.engine.requests import Answer
from qeval.score.harness import door

MAX_LENGTH = 160
TASKS = {
    "fix_letters": 2,
    "fix_endings": 3,
    "fix_several": 0,
    "fix_mutual": 0,
    "fix_mass": 2,
    "fix_pages": 0,
    "fix_cloze": 0,
    "fix_blanks": 0,
    "fix_sums": 0,
}


def plain_scorer(model, requests):
    """One forward pass a request: the dullest engine there is."""
    import torch

    answers = []
    for request in requests:
        tokens = torch.from_numpy(request.tokens.astype(np.int64))
        with torch.no_grad():
            logits = model(tokens[None, :-1]).logits[0]
        chances = torch.log_softmax(logits.float(), -1)[-request.n_scored :]
        wanted = tokens[-request.n_scored :]
        total = chances.gather(1, wanted[:, None]).sum()
        answers.append(Answer(float(total), bool((chances.argmax(-1) == wanted).all())))
    return answers


def theirs(model, tokenizer, name, shots, fixtures, limit=None, **options):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return lm_eval.simple_evaluate(
        model=HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=3,
            max_length=MAX_LENGTH,
            softmax_dtype="float32",
        ),
        tasks=[name],
        num_fewshot=shots,
        limit=limit,
        task_manager=TaskManager(include_path=str(fixtures), include_defaults=False),
        bootstrap_iters=0,
        fewshot_random_seed=77,
        log_samples=True,
        **options,
    )


def ours(tokenizer, name, shots, fixtures, limit=None, **options):
    (prepared,) = door.prepare(
        [Task(name, "", num_fewshot=shots, limit=limit)],
        tokenizer,
        max_length=MAX_LENGTH,
        seed=77,
        tasks_dir=fixtures,
        **options,
    )
    return prepared


def answered(prepared, model, tokenizer):
    if prepared.generates:
        return door.generate(prepared, model, tokenizer, batch_size=3)
    return plain_scorer(model, prepared.requests)
