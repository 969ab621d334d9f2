"""The environment variables that qeval heeds, and what each means: a table of docs/configuration.md."""

from __future__ import annotations

VARIABLES = {
    "QEVAL_RUNS_DIR": "Where runs are kept; `--runs-dir` takes precedence. Default: `runs` here.",
    "QEVAL_TASKS_DIR": "A folder of tasks of your own; `--tasks-dir` takes precedence.",
    "QEVAL_DATASETS_DIR": "A mirror of data sets, read before the Hub; `--datasets-dir` takes precedence.",
    "QEVAL_CACHE_DIR": "Where checkpoints, requests and head inputs are kept. Default: `~/.cache/qeval`.",
    "QEVAL_RUN_<OPTION>": "An option of `qeval run`: `QEVAL_RUN_SCHEMES=fp16,bnb4`, `QEVAL_RUN_LIMIT=40`.",
    "_QEVAL_COMPLETE": "Set by the shell's completion, not by you.",
    "NO_COLOR": "No colours, whatever else is set.",
    "FORCE_COLOR": "Colours into a pipe or a file too; `CLICOLOR_FORCE` is the same. `0` counts as unset.",
    "COLUMNS": "How wide texts are, whatever the terminal says; without it a pipe gets long lines.",
    "HF_TOKEN": "Access to gated models and data sets on the Hub; read by huggingface_hub.",
    "HF_ENDPOINT": "A Hub other than huggingface.co; read by huggingface_hub.",
    "HF_HUB_OFFLINE": "`1`: ask the Hub for nothing, use what is in its cache.",
    "HF_HOME": "Where huggingface_hub keeps its cache.",
    "CUDA_VISIBLE_DEVICES": "The GPUs that can be used; where it is set, one worker runs on each.",
    "RAY_ADDRESS": "The cluster of `--executor ray`.",
    "GITHUB_STEP_SUMMARY": "Set by GitHub: `gate` appends its summary to this file.",
    "GITHUB_ACTIONS": "Set by GitHub: `gate` prints annotations.",
}
