"""Options on where variants are scored: by several workers, by an executor, by others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from qeval.cli import options
from qeval.cli.meant import OneOf
from qeval.run.executors import SUMMARIES


def executor(names: Iterable[str]) -> Callable[[options.Command], options.Command]:
    """The option that names one of these executors."""
    known = ". ".join(f"{name}: {SUMMARIES[name]}" for name in names)
    return click.option(
        "--executor",
        type=OneOf(tuple(names)),
        default="local",
        show_default=True,
        help=f"Where variants are scored. {known}.",
    )


def several(command: options.Command) -> options.Command:
    """The options that have several workers score at once."""
    for option in (
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            metavar="N",
            help="Threads of each worker on a CPU.  [default: those the run began with; 1 with --workers]",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            metavar="N",
            help="Score with N workers at once on the CPU, or on a cluster; N does not change any score.",
        ),
        options.gpus_per_variant,
        click.option(
            "--devices",
            metavar="LIST",
            help="Score with one worker on each of these GPUs: all (idle ones of one kind), or e.g. 0,1."
            "  [default: those that CUDA_VISIBLE_DEVICES or the scheduler set, else one]",
        ),
    ):
        command = option(command)
    return command


def by_others(command: options.Command) -> options.Command:
    """The options of a run that processes score which the command does not start, or not itself."""
    for option in (
        click.option(
            "--no-shared-store",
            is_flag=True,
            help="The nodes of --executor ray do not see the runs directory: results are sent back.",
        ),
        click.option(
            "--ray-address",
            metavar="HOST:PORT",
            help="The cluster of --executor ray.  [default: RAY_ADDRESS, else one that runs here, else one"
            " is started here]",
        ),
        click.option(
            "--dry-run", is_flag=True, help="Print what --executor slurm would submit, and do nothing."
        ),
        click.option(
            "--wait",
            is_flag=True,
            help="Follow the jobs of --executor slurm to their end, and judge here; with --finish: wait until"
            " everything is scored, even by workers yet to start.",
        ),
        click.option(
            "--sbatch-args",
            multiple=True,
            metavar="WORDS",
            help="Arguments for sbatch, repeatable: --sbatch-args '--partition=a100 --gres=gpu:1 --mem=64G'.",
        ),
        click.option(
            "--finish",
            is_flag=True,
            help="Score nothing: wait for the running workers, then report and judge what there is.",
        ),
        click.option(
            "--prepare",
            is_flag=True,
            help="Score nothing: write down what is to be done, print the run's directory, and leave it to"
            " `qeval worker`.",
        ),
    ):
        command = option(command)
    return command
