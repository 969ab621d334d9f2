"""What `qeval run` was asked for: the words of the command line become an Order, or a refusal in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from qeval.ask import harness_config, placing, suites
from qeval.ask.fidelity import NOTHING, FidelityWish, wish
from qeval.ask.model import usual_suite
from qeval.ask.model_args import Asked
from qeval.ask.policy import exceptions
from qeval.ask.policy import load as load_policy
from qeval.ask.suite_files import no_task
from qeval.ask.words import Words, read
from qeval.base.errors import QevalError, UsageError, did_you_mean
from qeval.base.files import disk_errors
from qeval.base.places import at_home, cache_dir
from qeval.base.private import homeless, private
from qeval.base.records import Policy, Suite, Variant
from qeval.base.settings import Settings
from qeval.load.toy import is_toy
from qeval.load.toy import parse as parse_toy


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
    fidelity: FidelityWish = NOTHING
    own_tasks: Path | None = None


def order(**asked: Any) -> Order:
    """The words of the command line, by the names of Words and of Settings, as an Order. Raises UsageError
    where they make no sense."""
    words = read(**asked)
    variants = _variants(words)
    return Order(
        variants=variants,
        baseline=words.baseline or variants[0].name,
        suite=_suite(words, variants),
        settings=_settings(words),
        runs_dir=words.runs_dir,
        cache_dir=cache_dir(),
        command=tuple(map(private, words.command)),
        executor=words.executor,
        verify=_verified(words.verify, words.suite_name),
        cost=words.cost,
        again=words.again,
        policy=load_policy(words.gate) if words.gate else None,
        repeat_baseline=words.repeat_baseline,
        repeat_quantisation=words.repeat_quantisation or 0,
        devices=words.devices,
        workers=words.workers,
        threads=words.threads,
        only=_only(words),
        wait=words.wait,
        dry_run=words.dry_run,
        sbatch_args=tuple(words.sbatch_args),
        ray_address=words.ray_address,
        shared_store=not words.no_shared_store,
        fidelity=_wish(words),
    )


def _variants(words: Words) -> tuple[Variant, ...]:
    """The model under each scheme. Raises UsageError where there is nothing to judge, or a scheme is none."""
    from qeval.load.schemes import parse_schemes

    variants = tuple(
        Variant(name=name, model=words.model, scheme=scheme, revision=words.revision, adapter=words.adapter)
        for name, scheme in parse_schemes(homeless(words.schemes))
    )
    if words.gate and len(variants) == 1:
        raise UsageError(
            f"--gate has nothing to judge: {variants[0].name} is the only scheme.",
            "Name a second with --schemes.",
        )
    return variants


def _suite(words: Words, variants: tuple[Variant, ...]) -> Suite:
    """What is asked. Raises UsageError where a file of lm-eval's says something else than the words do."""
    named = words.suite or usual_suite(words.model)
    chosen = suites.from_tasks(words.tasks) if words.tasks else suites.load(named)
    if words.suite and harness_config.is_config(words.suite):
        asked = Asked(
            words.model,
            words.revision,
            words.adapter,
            tuple(variant.scheme.kind for variant in variants),
            words.settings.get("dtype", "auto"),
            words.settings.get("think_end"),
        )
        harness_config.check_settings(at_home(words.suite), words.settings, asked)
    return suites.adjust(chosen, limit=words.limit, num_fewshot=words.num_fewshot)


def _settings(words: Words) -> Settings:
    return Settings(
        limit=words.limit,
        materialize=not words.no_materialize,
        datasets_dir=str(words.datasets_dir.resolve()) if words.datasets_dir else None,
        **words.settings,
    )


def _only(words: Words) -> Literal["", "prepare", "finish"]:
    """What is done of a run that others score. Raises UsageError for words that this has no use for."""
    by_slurm = words.executor == "slurm"
    return placing.only(
        prepare=words.prepare or by_slurm,
        finish=words.finish,
        devices=words.devices,
        workers=None if by_slurm else words.workers,
        repeat_baseline=words.repeat_baseline or None,
        repeat_quantisation=words.repeat_quantisation,
    )


def _wish(words: Words) -> FidelityWish:
    """What is measured of fidelity: nothing elsewhere, for its cache lies on one machine."""
    if words.elsewhere:
        return NOTHING
    suite = None if words.limit else words.suite_name
    return wish(words.fidelity, words.fidelity_cache_limit, words.model, suite)


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
            f"The baseline {order.baseline!r} is not one of the variants.",
            did_you_mean(order.baseline, names),
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
    from qeval.load.checks import check_available, check_options
    from qeval.load.systems import check_scores

    if is_toy(variant.model):
        parse_toy(variant.model)
    try:
        if is_toy(variant.model):  # it needs no package, but what no model can be it is not either
            check_options(variant.scheme)
        else:
            check_scores()
            check_available(variant.scheme)
    except QevalError as error:
        return error
    return None


def check_tasks(order: Order, known: Collection[str], mine: Collection[str] = ()) -> None:
    """Refuse a task that is none of the `known` ones, the names of lm-eval's and our own tasks. `mine` are
    those in the user's own folder: where some are like it, they alone are named."""
    for task in order.suite.tasks:
        if task.name not in known:
            raise UsageError(
                f"There is no task {task.name!r}.",
                no_task(task.name, suites.names())
                or _alike(task.name, mine)
                or f"{did_you_mean(task.name, known, most=3) or _LIST} {_OWN}",
            )


_LIST, _OWN = "List lm-eval's with: lm-eval ls tasks.", "--tasks-dir names a folder of your own."


def _alike(name: str, mine: Collection[str]) -> str:
    hint = did_you_mean(name, mine, most=3)
    return hint if hint.startswith("Did you mean") else ""
