# ruff: noqa: INP001 -- lm-eval imports this file by its path, beside the YAML files that name it
"""Reads the data of the tasks in this folder, from wherever the folder lies and without a network.

lm-eval resolves a relative data path against the working directory. A YAML file here says
`custom_dataset: !function data.load` instead, and `dataset_kwargs: {file: facts}` names the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def read(file: str) -> list[dict[str, Any]]:
    """The items of `file`.jsonl beside this module, in order. Raises FileNotFoundError."""
    lines = (HERE / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def load(file: str, **_: object) -> Any:
    """A DatasetDict with the split `test`, and `fewshot` where there is a `file`_fewshot.jsonl.

    lm-eval passes the task's metadata as well; nothing in it changes the data.
    """
    from datasets import Dataset, DatasetDict

    splits = {"test": Dataset.from_list(read(file))}
    if (HERE / f"{file}_fewshot.jsonl").is_file():
        splits["fewshot"] = Dataset.from_list(read(f"{file}_fewshot"))
    return DatasetDict(splits)
