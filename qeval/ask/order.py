"""What `qeval run` was asked for: the words of the command line become an Order, or a refusal in words."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from qeval.ask import harness_config, placing, protocols, suites
from qeval.ask.model import split_revision, usual_suite
from qeval.ask.model_args import Asked
from qeval.ask.policy import exceptions
from qeval.ask.policy import load as load_policy
from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.base.files import disk_errors
from qeval.base.places import cache_dir
from qeval.base.private import homeless, private
from qeval.base.protocols import Protocol
from qeval.base.reading import whole
from qeval.base.records import Policy, Suite, Variant
from qeval.base.settings import WRITING, Settings
from qeval.load.toy import is_toy
from qeval.load.toy import parse as parse_toy


@dataclass(frozen=True)
class Fidelity:
    """By which protocols fidelity is measured, by which of them on a GPU alone, and the most bytes that what
    is kept for it may take (None: qeval's usual)."""

    protocols: tuple[Protocol, ...] = ()
    on_gpu: tuple[Protocol, ...] = ()
    cache_limit: int | None = None


@dataclass(frozen=True)
class Order:
    """Everything that `qeval run` was asked for; `only`: what others score is prepared, or finished."""

    variants: tuple[Variant, ...]
    baseline: str
    suite: Suite
    settings: Settings
    runs_dir: Path
    cache_dir: Path
    command: tuple[str, ...] = ()
    executor: str = "local"
    verify: int = 0
    cost: bool | None = False
    again: bool = False
    policy: Policy | None = None
    repeat_baseline: bool = False
    repeat_quantisation: int = 0
    devices: str | None = None
    workers: int | None = None
    threads: int | None = None
    only: Literal["", "prepare", "finish"] = ""
    wait: bool = False
    dry_run: bool = False
    sbatch_args: tuple[str, ...] = ()
    ray_address: str | None = None
    shared_store: bool = True
    fidelity: Fidelity = Fidelity()
    own_tasks: Path | None = None


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def order(
    *,
    model: str,
    schemes: str,
    suite: str | None,
    tasks: str | None,
    num_fewshot: int | None,
    baseline: str | None,
    limit: int | None,
    revision: str | None,
    adapter: str | None,
    runs_dir: Path,
    command: tuple[str, ...],
    verify: int | None,
    cost: bool | None,
    again: bool,
    no_materialize: bool,
    datasets_dir: Path | None,
    gate: Path | None,
    executor: str = "local",
    repeat_baseline: bool = False,
    repeat_quantisation: int | None = None,
    devices: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    prepare: bool = False,
    finish: bool = False,
    wait: bool = False,
    dry_run: bool = False,
    sbatch_args: tuple[str, ...] = (),
    ray_address: str | None = None,
    no_shared_store: bool = False,
    fidelity: str | None = None,
    fidelity_cache_limit: int | None = None,
    **settings: Any,
) -> Order:
    """The words of the command line as an Order. Raises UsageError where they make no sense."""
    from qeval.load.schemes import parse_schemes

    if suite and tasks:
        raise UsageError("--suite and --tasks exclude each other.", "Leave one of them out.")
    batch = settings.get("batch_size", "auto")
    if batch != "auto" and not whole(batch):
        raise UsageError(f"--batch-size {batch!r} is not a number of sequences.", "Write auto, or e.g. 8.")
    if not math.isfinite(settings.get("temperature") or 0):
        raise UsageError("--temperature is not a finite number.", "Write e.g. 0.7, or leave it out.")
    if settings.get("framed") and (settings.get("engine") == "lm-eval" or is_toy(model)):
        who = "The toy" if is_toy(model) else "lm-eval's own engine"
        raise UsageError(f"{who} has no perplexity inside a chat template.", "Leave out --framed.")
    if is_toy(model) and (asked := _of_writing(settings)):
        raise UsageError("The toy writes no texts.", f"Leave out --{asked[0].replace('_', '-')}.")
    placing.check(
        executor,
        prepare=prepare,
        finish=finish,
        wait=wait,
        dry_run=dry_run,
        sbatch_args=sbatch_args,
        ray_address=ray_address,
        no_shared_store=no_shared_store,
        devices=devices if executor in placing.CLUSTERS else None,
    )
    here = executor not in placing.CLUSTERS
    elsewhere = not here or prepare or finish
    placing.check_fidelity(elsewhere=elsewhere, fidelity=fidelity, limit=fidelity_cache_limit)
    if not elsewhere:  # what this machine has does not count for those who score
        settings |= _device(model, settings.get("device", "auto"), devices, workers, threads)
    _check_spread(
        model, settings, {"--workers": here and workers is not None, "--no-materialize": no_materialize}
    )
    model, revision = split_revision(homeless(model), revision)
    adapter, baseline = (homeless(word) if word else None for word in (adapter, baseline))
    variants = tuple(
        Variant(name=name, model=model, scheme=scheme, revision=revision, adapter=adapter)
        for name, scheme in parse_schemes(homeless(schemes))
    )
    if gate and len(variants) == 1:
        raise UsageError(
            f"--gate has nothing to judge: {variants[0].name} is the only scheme.",
            "Name a second with --schemes.",
        )
    chosen = suites.from_tasks(tasks) if tasks else suites.load(suite or usual_suite(model))
    if suite and harness_config.is_config(suite):
        asked_of_model = Asked(
            model,
            revision,
            adapter,
            tuple(variant.scheme.kind for variant in variants),
            settings.get("dtype", "auto"),
            settings.get("think_end"),
        )
        harness_config.check_settings(Path(suite).expanduser(), settings, asked_of_model)
    return Order(
        variants=variants,
        baseline=baseline or variants[0].name,
        suite=suites.adjust(chosen, limit=limit, num_fewshot=num_fewshot),
        settings=Settings(
            limit=limit,
            materialize=not no_materialize,
            datasets_dir=str(datasets_dir.resolve()) if datasets_dir else None,
            **settings,
        ),
        runs_dir=runs_dir,
        cache_dir=cache_dir(),
        command=tuple(map(private, command)),
        executor=executor,
        verify=_verified(verify, None if tasks else suite or usual_suite(model)),
        cost=cost,
        again=again,
        policy=load_policy(gate) if gate else None,
        repeat_baseline=repeat_baseline,
        repeat_quantisation=repeat_quantisation or 0,
        devices=devices,
        workers=workers,
        threads=threads,
        only=placing.only(
            prepare=prepare or executor == "slurm",
            finish=finish,
            devices=devices,
            workers=None if executor == "slurm" else workers,
            repeat_baseline=repeat_baseline or None,
            repeat_quantisation=repeat_quantisation,
        ),
        wait=wait,
        dry_run=dry_run,
        sbatch_args=tuple(sbatch_args),
        ray_address=ray_address,
        shared_store=not no_shared_store,
        fidelity=Fidelity()  # its cache lies on one machine
        if elsewhere
        else _fidelity(
            fidelity, fidelity_cache_limit, model, None if tasks or limit else suite or usual_suite(model)
        ),
    )


NO_FIDELITY = "none"
"""The word of --fidelity that has nothing measured, whatever the suite says."""


def _fidelity(words: str | None, limit: int | None, model: str, suite: str | None) -> Fidelity:
    """What is measured of fidelity: as asked, else as the suite's file says (None: nothing, as in a smoke
    run); of the toy only what is asked.

    Raises what `protocols.parse` and `check_files` raise.
    """
    if words is not None:
        asked = () if words.strip() == NO_FIDELITY else protocols.parse(homeless(words))
        protocols.check_files(asked)
        return Fidelity(asked, cache_limit=limit)
    always, on_gpu = suites.fidelity_of(suite) if suite and not is_toy(model) else ((), ())
    return Fidelity(protocols.of_suite(always), protocols.of_suite(on_gpu), limit)


def fidelity_wish(words: str | None, limit: int | None, model: str, suite: str) -> Fidelity:
    """What is to be measured of a run of a model on a suite, after the fact. Raises UsageError where neither
    the words nor the suite name a protocol."""
    known = suite if suite in suites.names() else None
    found = _fidelity(words, limit, model, known)
    if not (found.protocols or found.on_gpu):
        raise UsageError(
            f"The suite {suite} names no protocol of fidelity.", "Name some: --fidelity wikitext-2048,prose"
        )
    return found


def _device(
    model: str, device: str, devices: str | None, workers: int | None, threads: int | None
) -> dict[str, str]:
    """The device that one worker or several mean. Raises UsageError where their words exclude each other, or
    ask for more than this machine has."""
    if devices is not None and (workers is not None or device != "auto"):
        other = "--workers" if workers is not None else "--device"
        raise UsageError(f"--devices and {other} exclude each other.", "Leave one of them out.")
    if devices is not None and is_toy(model):
        raise UsageError("The toy calculates on no GPU.", "Use --workers N.")
    if workers is not None and device not in {"auto", "cpu"}:
        raise UsageError("--workers share the CPU.", "Use --devices for several GPUs.")
    if threads is not None and workers is None and device != "cpu":
        raise UsageError("--threads concerns the CPU.", "Add --workers N, or --device cpu.")
    if (wanted := (workers or 1) * (threads or 1)) > cores():
        raise UsageError(
            f"{workers or 1} workers of {threads or 1} threads are more than the {cores()} cores here.",
            f"Ask for {cores()} in all at most, not {wanted}.",
        )
    return {} if workers is None else {"device": "cpu"}


def _check_spread(model: str, settings: dict[str, Any], others: dict[str, bool]) -> None:
    """Raise UsageError where a variant is to lie on several GPUs and something else says that it does not."""
    if settings.get("gpus", 1) == 1:
        return
    against = {
        **others,
        "--device": settings.get("device", "auto") != "auto",
        "--placement streamed": settings.get("placement") == "streamed",
    }
    for words in (words for words, said in against.items() if said):
        raise UsageError(f"--gpus-per-variant and {words} exclude each other.", "Leave one of them out.")
    if is_toy(model):
        raise UsageError("The toy calculates on no GPU.", "Leave out --gpus-per-variant.")


def _of_writing(settings: dict[str, Any]) -> list[str]:
    """The settings that were asked for and concern nothing but texts that a model writes."""
    return [name for name in WRITING if settings.get(name) is not None]


def _verified(asked: int | None, suite: str | None) -> int:
    """How many documents of each row lm-eval scores too: as asked, else as the suite's file says."""
    if asked is not None:
        return asked
    return suites.documents_verified(suite) if suite else 0


def cost_order(**asked: Any) -> Order:
    """An order that scores nothing and measures what each variant costs; takes some words of `order`."""
    empty = Suite("cost", (), description="Nothing is scored; only costs are measured.")
    made = order(
        suite=None,
        tasks="none",
        num_fewshot=None,
        baseline=None,
        limit=None,
        verify=0,
        cost=True,
        again=False,
        no_materialize=True,
        gate=None,
        **asked,
    )
    return replace(made, suite=empty)


def announcement(order: Order) -> str:
    """What is about to be done, in a sentence."""
    names = ", ".join(v.name + (" (baseline)" if v.name == order.baseline else "") for v in order.variants)
    limit = f", at most {order.settings.limit} items of each" if order.settings.limit else ""
    tasks = f"{len(order.suite.tasks)} task" + ("s" if len(order.suite.tasks) > 1 else "")
    return f"{order.variants[0].model} as {names} on {order.suite.name}: {tasks}{limit}."


def let_pass(order: Order) -> Iterator[str]:
    """A sentence where the policy that will judge has exceptions."""
    if order.policy is not None and (found := exceptions(order.policy)):
        yield f"The policy {order.policy.source} has exceptions: {', '.join(found)}."


def check(order: Order) -> dict[str, QevalError]:
    """Refuse, before any weights are loaded, what cannot work: names, the runs directory, the baseline's
    packages. Returns why other variants cannot be run here, by name; they need not keep the rest back."""
    names = [variant.name for variant in order.variants]
    if order.baseline not in names:
        raise UsageError(
            f"The baseline {order.baseline!r} is none of the variants.", did_you_mean(order.baseline, names)
        )
    refused = {variant.name: error for variant in order.variants if (error := _refusal(variant))}
    if order.baseline in refused:
        raise refused[order.baseline]
    if refused and len(refused) == len(names) - 1:
        raise next(iter(refused.values()))
    if not order.dry_run:
        with disk_errors(order.runs_dir):
            order.runs_dir.mkdir(parents=True, exist_ok=True)
    return refused


def _refusal(variant: Variant) -> QevalError | None:
    """Why a variant cannot be run here, found without loading anything. Raises UsageError for a toy that
    does not exist."""
    if is_toy(variant.model):
        parse_toy(variant.model)
        return None
    from qeval.load.checks import check_available
    from qeval.load.systems import check_scores

    try:
        check_scores()
        check_available(variant.scheme)
    except QevalError as error:
        return error
    return None


def check_tasks(order: Order, known: Collection[str]) -> None:
    """Refuse a task that is none of the `known` ones, the names of lm-eval's and our own tasks."""
    for task in order.suite.tasks:
        if task.name not in known:
            raise UsageError(
                f"There is no task {task.name!r}.",
                did_you_mean(task.name, known, most=3)
                or "List lm-eval's with: lm-eval ls tasks. --tasks-dir names a folder of your own.",
            )
