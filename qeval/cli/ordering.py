"""What `qeval run` was asked for, checked as far as that needs no model; a refusal is remembered.

`qeval run --tpyo; qeval gate` in a script that goes on after errors would else judge the run before, whoever
refused the words: this module, the file or the variables that say more, or Click.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.cli.meant import near_option
from qeval.cli.speech import say

if TYPE_CHECKING:
    from qeval.ask.order import Order


def ordered(ctx: click.Context, runs_dir: Path, words: Sequence[str], asked: dict[str, Any]) -> Order:
    """The order that the words of a command make.

    A refusal is remembered: whoever judges next must not take an older run for the one that was asked for.
    Raises what `qeval.ask.order.order` raises, UsageError for a task that does not exist, and QevalError for
    data sets that are not here.
    """
    from qeval.ask.order import order
    from qeval.cli.own_tasks import own_tasks
    from qeval.run.executors import slurm
    from qeval.store.newest import INTERRUPTED, not_begun

    try:
        folder = asked.pop("tasks_dir")
        made = order(runs_dir=runs_dir, command=("qeval", *words), **asked)
        made = replace(made, own_tasks=own_tasks(folder, made.suite, asked["suite"], runs_dir))
        if made.executor == "slurm":
            slurm.check(made, words)
        _check_memory(ctx, made)
        _check_tasks(made, asked["suite"])
        _check_data(made)
    except (QevalError, OSError, KeyboardInterrupt) as error:
        if not asked["dry_run"]:
            why = error.message if isinstance(error, QevalError) else str(error) or INTERRUPTED
            not_begun(runs_dir, asked["model"], why)
        raise
    return made


def _check_memory(ctx: click.Context, order: Order) -> None:
    """Refuse a limit on a GPU's memory where this machine scores and has no GPU, and say where it stands."""
    from qeval.ask.placing import CLUSTERS
    from qeval.cli.configured import ENVIRONMENT, PREFIX, place_of
    from qeval.run.gpus import visible

    elsewhere = order.executor in CLUSTERS or order.only
    if order.settings.gpu_memory is None or elsewhere:
        return
    device = order.settings.device
    if not device.startswith("cuda") and (device != "auto" or not visible()):
        place = place_of(ctx, "gpu_memory")
        what = f"gpu_memory in {place}" if place else "--gpu-memory"
        what = f"{PREFIX}GPU_MEMORY" if place == ENVIRONMENT else what
        where = f"the device is {device}" if device != "auto" else "this machine has no NVIDIA GPU"
        hint = "Take it out there, and give --gpu-memory where there is a GPU." if place else "Leave it out."
        raise UsageError(f"{what} limits a GPU, and {where}.", hint)


def _check_tasks(order: Order, suite: str | None) -> None:
    """Refuse a task that does not exist, first, then one whose file cannot be read, and what its file has
    not; lm-eval's names are read from its files. Where lm-eval is not installed only the toy can be asked,
    and takes any name; of tasks whose files are here it takes no more than a model does."""
    from qeval.ask.harness_config import is_config
    from qeval.ask.order import check_tasks
    from qeval.ask.suites import refuse_in_average
    from qeval.base.places import tasks_dir
    from qeval.cli.own_tasks import harness_is_here, names_at_hand
    from qeval.load.toy import is_toy
    from qeval.score.harness import written
    from qeval.score.harness.catalogue import catalogue
    from qeval.score.harness.parsed import check

    toy = is_toy(order.variants[0].model)
    stock = harness_is_here() or not toy
    known = catalogue(tasks_dir(), order.cache_dir, order.own_tasks, stock=stock)
    if stock:
        check_tasks(order, known.names, names_at_hand(order.own_tasks, suite))
    if order.own_tasks is not None and toy:
        check([task.name for task in order.suite.tasks], order.own_tasks)
    written.check(order.suite.tasks, known, order.own_tasks)
    if suite is not None and not is_config(suite):
        refuse_in_average(order.suite, tuple(written.perplexities(order.suite.tasks, known.files)))


def _check_data(order: Order) -> None:
    """Refuse a run that would find out variant by variant that data sets are missing; one that has all its
    results, or is scored elsewhere, needs none.

    Raises QevalError, with the data sets and the command that fetches them.
    """
    from qeval.ask.placing import CLUSTERS
    from qeval.load.toy import is_toy
    from qeval.run.runner import rehearsed
    from qeval.score.harness.absent import Reads, missing

    if is_toy(order.variants[0].model) or order.executor in CLUSTERS or order.only:
        return
    mirror = Path(order.settings.datasets_dir) if order.settings.datasets_dir else None
    reads = Reads(order.suite.tasks, order.own_tasks, order.cache_dir, mirror, _protocol(order))
    error = missing(reads, lambda told: say(told, err=True))
    if error is not None and rehearsed(order)[1]:
        raise error


def _protocol(order: Order) -> str:
    """The protocol of fidelity that reads a data set of the Hub; "" where none is measured."""
    from qeval.run.gpus import visible

    device = order.settings.device
    on_gpu = device.startswith("cuda") or (device == "auto" and bool(visible()))
    asked = (*order.fidelity.protocols, *(order.fidelity.on_gpu if on_gpu else ()))
    return next((one.name for one in asked if one.kind in {"wikitext", "llama.cpp"}), "")


# --- what was refused before there was an order -------------------------------------------------

MAKERS = ("run", "import")
"""The commands that make runs."""


@contextlib.contextmanager
def remembered(
    words: Sequence[str], runs_dir: Path | None = None, command: Sequence[str] = ()
) -> Iterator[None]:
    """Where the words of a command are refused, remember that whoever typed them asked for a run; nothing of
    a dry run, which asks for none. `command`: all words of an import, which scores nothing."""
    try:
        yield
    except (click.ClickException, QevalError, OSError) as error:
        if "--dry-run" not in words:
            _remember(words, runs_dir, error, command)
        raise


def group_refused(words: Sequence[str], error: click.ClickException) -> None:
    """Remember a refusal of words before a command's name, or of that name, if a run was likely asked for."""
    names = [word for word in words if not word.startswith("-")]
    if any(name in MAKERS or "Did you mean" in did_you_mean(name, MAKERS) for name in names[:1]):
        command = ("qeval", *words) if names[0] == "import" else ()
        with contextlib.suppress(click.ClickException), remembered(words, command=command):
            raise error


def _remember(words: Sequence[str], runs_dir: Path | None, error: Exception, command: Sequence[str]) -> None:
    from qeval.store.newest import not_begun

    told = error.format_message() if isinstance(error, click.ClickException) else str(error)
    why = error.message if isinstance(error, QevalError) else told
    place, model = runs_dir or _place(words), _after(words, "--model", "-m")
    not_begun(place, "" if command else model, why, shlex.join(command))


def _place(words: Sequence[str]) -> Path:
    """Where runs are kept, as far as refused words tell."""
    from qeval.base.places import at_home

    found = _after(words, "--runs-dir") or os.environ.get("QEVAL_RUNS_DIR") or "runs"
    return at_home(found)


def _after(words: Sequence[str], *names: str) -> str:
    """The value of an option in words that were not parsed; "" where it is not there."""
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in names:
            return value if equals else next(iter(words[place + 1 :]), "")
    return ""


# --- files of an earlier gate, which say so where the words of a later one are refused ---------------


def files_in(words: Sequence[str]) -> list[tuple[str, Path]]:
    """The files that words of `qeval gate` name, by format; of an option that is nearly one of them only a
    file that looks as its format does."""
    from qeval.base.places import at_home
    from qeval.judge.formats import formats

    options = {f"--{name}": name for name, found in formats().items() if found.help}
    ahead = list(words[: words.index("--")] if "--" in words else words)
    found = []
    for place, word in enumerate(ahead):
        option, equals, value = word.partition("=")
        file = value if equals else next(iter(ahead[place + 1 :]), "")
        if option in options and file:
            found.append((options[option], at_home(file)))
        elif option.startswith("--") and file:
            found += _nearly(option, at_home(file), options)
    return found


def _nearly(option: str, file: Path, options: dict[str, str]) -> Iterator[tuple[str, Path]]:
    from qeval.judge.formats import is_of

    near = near_option(option, options)
    for one, name in options.items():
        with contextlib.suppress(OSError):
            if repr(one) in near and is_of(file, name):
                yield name, file


def withdraw(words: Sequence[str], error: Exception) -> None:
    """Let the files that these words name tell that a gate came to no verdict for this error."""
    from qeval.judge import formats

    if not any(word.startswith("--") for word in words):
        return
    why = error.format_message() if isinstance(error, click.ClickException) else str(error)
    formats.withdraw(files_in(words), why)
