"""`qeval report`: a run as a document, in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qeval.base.private import private
from qeval.cli import options
from qeval.cli.speech import say

if TYPE_CHECKING:
    from qeval.base.records import Decision, Policy
    from qeval.compare.evidence import Evidence
    from qeval.compare.margin import Margin
    from qeval.report.context import Context
    from qeval.report.history.series import History


class _Outputs(click.Option):
    """An option whose help names the endings of all formats, which are looked up when it is shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The option's words and its help."""
        from qeval.report.formats import formats

        record = super().get_help_record(ctx)
        return record and (record[0], f"{record[1]}  [{'|'.join(sorted(formats()))}]")


@click.command(cls=options.Strict)
@options.runs
@click.option(
    "--output",
    "-o",
    "outputs",
    type=options.Output(path_type=Path, dir_okay=False),
    multiple=True,
    required=True,
    cls=_Outputs,
    help="Where to write; the extension chooses the format. Repeatable.",
)
@options.policy
@options.margin
@click.option("--title", help="The report's title.")
@click.option("--short", is_flag=True, help="Keep the Markdown short enough for a pull-request comment.")
@click.option(
    "--assets",
    type=options.Output(path_type=Path, file_okay=False),
    help="Write the charts of the Markdown report here, as SVG.",
)
@click.option(
    "--history", is_flag=True, help="Add the history over earlier runs to the HTML, with its limit."
)
@click.pass_context
def report(
    ctx: click.Context, /, runs: tuple[str, ...], outputs: tuple[Path, ...], history: bool, **asked: Any
) -> None:
    """Render a run (the newest, if none is named) as a document."""
    from qeval.ask.policy import choose
    from qeval.cli.meant import meant
    from qeval.report.context import build
    from qeval.report.facts import asked_of

    drawn = {name: asked.pop(name) for name in ("short", "assets")}
    title, runs_dir, margin = (asked.pop(name) for name in ("title", "runs_dir", "margin"))
    baseline, redact = asked.pop("baseline"), asked.pop("redact")
    if history:
        _check_history(runs, outputs, baseline)
    _check_markdown(outputs, {"--short": drawn["short"], "--assets": drawn["assets"] is not None})

    policy, any_model = choose(**asked), asked["allow_different_models"]
    named = meant(runs, runs_dir, judged=policy is not None, told=not redact)
    paths: dict[str, str] | None = {} if redact and history else None
    words = {"allow_different_models": any_model, "paths": paths, "margin": margin}
    opened = partial(options.open_runs, named, runs_dir, baseline, **words)
    evidence, read = opened(redact=redact)
    judged = _judged(ctx, policy, opened(redact=False)[0] if policy and redact else evidence, paths)
    context = build(
        evidence,
        read.items,
        judged.decisions,
        judged.policy,
        title=title,
        forgiven=judged.forgiven,
        excepted=judged.excepted,
        asked=asked_of(evidence, baseline, judged.rules, any_model=any_model, history=history),
    )
    earlier = _earlier(named, runs_dir, judged.policy, margin, paths, redact=redact) if history else None
    _write(context, outputs, history=earlier, **drawn)


@dataclass(frozen=True)
class _Judged:
    """A gate's part of a report; nothing where nobody asked for one. `rules` are the words that did."""

    policy: Policy | None = None
    decisions: tuple[Decision, ...] = ()
    forgiven: tuple[str, ...] = ()
    excepted: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[str, ...] = ()


def _judged(
    ctx: click.Context, policy: Policy | None, evidence: Evidence, paths: dict[str, str] | None
) -> _Judged:
    """What the policy makes of the evidence, without its paths where the report is to have none."""
    from qeval.base.redacted import hiding
    from qeval.judge.gate import conclude
    from qeval.judge.redacted import without_paths

    if policy is None:
        return _Judged()
    redact = ctx.params["redact"]
    outcome = conclude(evidence, policy)
    outcome = without_paths(outcome, evidence, paths) if redact else outcome
    rules = _rules(ctx, outcome.policy)
    rules = tuple(map(hiding(evidence.run, paths)[1], rules)) if redact else rules
    return _Judged(outcome.policy, outcome.decisions, outcome.forgiven, outcome.excepted, rules)


def _write(
    context: Context, outputs: tuple[Path, ...], *, short: bool, assets: Path | None, history: History | None
) -> None:
    """Each output in its format, whose name is told; none where one of them cannot be made."""
    from qeval.base.files import write_text
    from qeval.report.formats import Options, render

    made = [(path, render(context, path, Options(short, assets, history=history))) for path in outputs]
    for path, text in made:
        write_text(path, text)
        say(str(path))


def _rules(ctx: click.Context, policy: Policy) -> tuple[str, ...]:
    """The words that said what is allowed, a policy by the name that it may be shown by."""
    from qeval.ask.policy import FORGIVENESS
    from qeval.cli.said import said

    named = ctx.params["policy"]
    asked = {"policy", "max_drop", "max_ppl_ratio", "confidence", "ungated", *FORGIVENESS}
    words = said(ctx, asked - {"allow_different_models"})
    shown = policy.source if ctx.params["redact"] else private(str(named))
    return tuple(shown if named is not None and word == private(str(named)) else word for word in words)


def _check_markdown(outputs: tuple[Path, ...], given: dict[str, bool]) -> None:
    """Raises UsageError for an option of Markdown where none is written."""
    from qeval.base.errors import UsageError

    asked = [name for name, one in given.items() if one]
    if asked and not any(path.suffix.lower() == ".md" for path in outputs):
        raise UsageError(f"{asked[0]} is for Markdown, and none is written.", "Write e.g. -o report.md")


def _check_history(runs: tuple[str, ...], outputs: tuple[Path, ...], baseline: str | None) -> None:
    """Raises UsageError where lines of earlier runs could not be drawn."""
    from qeval.base.errors import UsageError

    if not any(path.suffix.lower() == ".html" for path in outputs):
        raise UsageError("--history is drawn in HTML only.", "Write e.g. -o report.html, or: qeval history")
    if len(runs) > 1 or baseline is not None:
        raise UsageError(
            "--history shows one run against its own baseline.", "Name one run, and leave out --baseline."
        )


def _earlier(
    runs: tuple[str, ...],
    runs_dir: Path,
    policy: Policy | None,
    margin: Margin,
    paths: dict[str, str] | None,
    *,
    redact: bool,
) -> History | None:
    """The lines of the run and of earlier ones of its model and suite; None where there are none."""
    from qeval.cli import past
    from qeval.report.history.series import Wanted
    from qeval.store.runs import Store

    store = Store(runs_dir)
    place = store.open(runs[0])
    run = place.read()
    others = [one for one in store.runs() if one.path.resolve() != place.path.resolve()]
    wanted = Wanted(run.model, run.suite.name)
    found = past.history(
        [place, *others],
        wanted,
        policy,
        margin=margin,
        redact=redact,
        paths=paths,
        upto=past.begun(run),
    )
    if found.runs > 1:
        return found
    say(
        f"No earlier run of {run.model}, suite {run.suite.name}, is in {runs_dir}: no line is drawn.",
        err=True,
    )
    return None
