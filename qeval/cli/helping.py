"""Help that guides: commands and options in groups, an example for every command, and what to type first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import click

COMMANDS = {
    "Measure": ("run", "fidelity", "blame", "cost", "quantize", "worker"),
    "Read": ("show", "report", "view", "list", "history"),
    "Judge": ("gate", "plan"),
    "Exchange": ("import", "export", "fetch"),
    "This machine": ("doctor", "cache", "completion"),
}
"""Commands by what they are for; others stand at the end."""

RUN_OPTIONS = {
    "What is scored": (
        "model", "revision", "adapter", "schemes", "baseline", "suite", "tasks", "num_fewshot", "limit",
        "trust_remote_code", "allow_unused",
    ),
    "How it is scored": (
        "dtype", "engine", "batch_size", "seed", "verify", "no_materialize", "chat_template", "framed",
        "max_gen_toks", "repeats", "temperature", "think_end",
    ),
    "Where it is scored": (
        "device", "devices", "workers", "threads", "gpus", "placement", "gpu_memory", "executor",
        "ray_address", "no_shared_store", "sbatch_args", "dry_run", "prepare", "finish", "wait",
    ),
    "What else is measured": (
        "cost", "repeat_baseline", "repeat_quantisation", "fidelity", "fidelity_cache_limit",
    ),
    "What is judged": ("gate", "margin"),
    "Files, and what is printed": ("tasks_dir", "datasets_dir", "runs_dir", "again", "loudness", "as_json"),
}  # fmt: skip
"""The options of `qeval run` by what they are about."""

GROUPS: Mapping[str, Mapping[str, Sequence[str]]] = {"run": RUN_OPTIONS}

EXAMPLES: Mapping[str, Sequence[tuple[str, str]]] = {
    "run": (
        ("qeval run --model toy --schemes fp16,gptq", "made-up answers, in seconds"),
        ("qeval run --model 'toy[items=1000,fail=gptq]'", "more of them, and a failure"),
        ("qeval run --model demo --schemes fp16,bnb4", "a small real model, without a GPU"),
        ("qeval run --model meta-llama/Llama-2-13b-hf --gpu-memory 24GiB", "the whole suite"),
        ("qeval run --model ./mine --schemes fp16,gptq@./mine-gptq --suite quick", "a ready checkpoint"),
    ),
    "fidelity": (("qeval fidelity --fidelity prose", "of the newest run"),),
    "blame": (("qeval blame --model demo --scheme bnb4", "which layers moved most"),),
    "cost": (("qeval cost --model demo --schemes fp16,bnb4", "load time, memory, latency"),),
    "quantize": (("qeval quantize --model demo --scheme gptq[bits=4] --output demo-gptq", ""),),
    "worker": (("qeval worker runs/RUN", "on each machine that takes part"),),
    "show": (("qeval show", "the newest run"), ("qeval show RUN --baseline bnb4", "another baseline")),
    "report": (
        ("qeval report -o report.html -o report.md", "the newest run, twice"),
        ("qeval report --short -o comment.md", "for a pull request"),
    ),
    "view": (("qeval view", "in a browser"), ("qeval view --port 8000", "where there is none")),
    "history": (
        ("qeval history", "every variant's average"),
        ("qeval history --variant bnb4 --max-drop 1.0 -o history.html", "with the limit drawn in"),
    ),
    "list": (("qeval list schemes", ""), ("qeval list runs", "")),
    "gate": (
        ("qeval gate --max-drop 1.0", "no task may lose a point"),
        ("qeval gate --policy leaderboard-v1 --junit gate.xml", "the policy of that suite, for CI"),
    ),
    "plan": (
        ("qeval plan --policy leaderboard-v1", "can its limits be decided?"),
        ("qeval plan --model meta-llama/Llama-2-13b-hf --gpu-memory 24GiB", "does it fit?"),
    ),
    "import": (("qeval import lm-eval-output/ --baseline fp16", "results with samples"),),
    "export": (("qeval export --to csv -o tables", "the newest run"),),
    "fetch": (
        ("qeval fetch --suite leaderboard-v1 --to mirror", "data sets alone"),
        ("qeval fetch --suite quick --model org/name --schemes fp16,gptq --to mirror", "everything it reads"),
    ),
    "doctor": (("qeval doctor", ""),),
    "cache": (
        ("qeval cache", "what is kept, with sizes"),
        ("qeval cache --prune --older-than 30d", "lists first, then asks"),
    ),
    "completion": (('eval "$(qeval completion bash)"', "in ~/.bashrc"),),
}
"""What a person may type, and what comes of it, by command."""


class WholeWords(click.HelpFormatter):
    """A help page in which no word is broken at a hyphen, --datasets-dir stays in one piece, and no command
    in backticks at a blank."""

    def write_text(self, text: str) -> None:
        """A paragraph."""
        super().write_text(_held(text))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Terms and what they mean."""
        super().write_dl([(term, _held(text)) for term, text in rows], col_max, col_spacing)

    def getvalue(self) -> str:
        """The page."""
        return super().getvalue().replace(_HYPHEN, "-").replace(_BLANK, " ")


_HYPHEN, _BLANK = "\N{NON-BREAKING HYPHEN}", "\N{NO-BREAK SPACE}"
_QUOTED = re.compile(r"`[^`\n]*`")


def _held(text: str) -> str:
    """A text with signs that no line is broken at."""
    return _QUOTED.sub(lambda found: found[0].replace(" ", _BLANK), text.replace("-", _HYPHEN))


class Page(click.Context):
    """A context whose help pages keep words whole."""

    formatter_class = WholeWords


def write_groups(
    formatter: click.HelpFormatter, rows: Mapping[str, tuple[str, str]], groups: Mapping[str, Sequence[str]]
) -> None:
    """Write the rows of a help page by groups, what is in none at the end."""
    named = {name for names in groups.values() for name in names}
    rest = [name for name in rows if name not in named]
    for title, names in {**groups, "More": rest}.items():
        shown = [rows[name] for name in names if name in rows]
        if shown:
            with formatter.section(title):
                formatter.write_dl(shown)


def write_examples(formatter: click.HelpFormatter, name: str) -> None:
    """Write a command's examples, each on a line of its own, whole."""
    if name in EXAMPLES:
        with formatter.section("Examples"):
            for line in aligned(EXAMPLES[name], formatter.width - 2):
                formatter.write(f"  {line}\n")


def aligned(lines: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Commands with what they do beside them, or above them where that does not fit."""
    longest = max(len(command) for command, _ in lines)
    beside = [f"{command:<{longest}}  # {what}" if what else command for command, what in lines]
    if max(map(len, beside)) <= width:
        yield from beside
        return
    for command, what in lines:
        yield from (f"# {what}", command) if what else (command,)


def first_steps(newest: str | None, width: int) -> str:
    """What to type next, by whether there is a run already."""
    begin = (*EXAMPLES["run"][:2], ("qeval run --model ORG/NAME", "your own model: a Hub id, or a directory"))
    read = (
        ("qeval show", "the table"),
        ("qeval report -o report.html", "the whole report"),
        ("qeval gate --max-drop 1.0", "is the loss allowed? The exit code says so"),
    )
    there = f"The newest run is {newest}. To read and judge it:" if newest else "Then:"
    parts: Iterable[tuple[str, Sequence[tuple[str, str]]]] = (
        [(there, read), ("To score another:", begin)]
        if newest
        else [("Score something:", begin), (there, read)]
    )
    told = [
        f"{title}\n" + "\n".join(f"  {line}" for line in aligned(lines, width - 2)) for title, lines in parts
    ]
    machine = "`qeval doctor` shows what this machine can run, `qeval --help` all commands."
    return "\n\n".join([*told, machine])
