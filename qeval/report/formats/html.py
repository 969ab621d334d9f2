"""The report as one HTML file that needs nothing else: styles, script, pictures and data inside."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from qeval.base import numbers
from qeval.base.names import slugged
from qeval.base.plain import plain
from qeval.base.text import visible
from qeval.compare.columns import COLUMNS
from qeval.report.charts import Chart, charts
from qeval.report.colours import places
from qeval.report.context import Context
from qeval.report.explorer import changes, flips_link, payload
from qeval.report.fidelity import BIN_HEADERS, HEADERS, MORE_HEADERS, PASSAGE_HEADERS, TRACE_HEADERS
from qeval.report.figures import PROOFS, proofs
from qeval.report.formats import Format
from qeval.report.formats.asides import packed
from qeval.report.glossary import glossary
from qeval.report.history.page import past
from qeval.report.noise import FLOOR_HEADERS, SEED_HEADERS
from qeval.report.patterns import listed
from qeval.report.subjects import alike, extremes, sentences
from qeval.report.verdicts import MARKS, WORDS
from qeval.report.versus import versus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jinja2 import Environment

    from qeval.compare.rows import Row
    from qeval.report.history.series import History

STYLES = ("style.css", "decision.css", "colours.css", "tables.css", "subjects.css", "explorer.css")
SCRIPTS = ("script.js", "tables.js", "against.js", "items.js", "explorer.js")
"""What the page's one style and one script are joined from, in order: a file a topic."""


def render_html(context: Context, history: History | None = None) -> str:
    """The page. Every text in it is escaped; its own policy forbids it any network and any other script."""
    style, script, drawn = _joined(STYLES), _joined(SCRIPTS), charts(context)
    style += _joined(("strip.css",)) if history else ""
    met = versus(context)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            **_parts(context, drawn),
            cost_charts=[chart for chart in drawn if chart.id.startswith("cost-")],
            sections=sections(context, drawn, past=history is not None),
            past=past(history) if history else None,
            data=as_script_data(payload(context.explorer, context.run)),
            noise_tables=(
                (f"Noise floor of {context.run.baseline} by task", FLOOR_HEADERS, context.noise.floor),
                ("Spread over seeds by task", SEED_HEADERS, context.noise.seeds),
            ),
            fidelity_headers=(HEADERS, MORE_HEADERS, TRACE_HEADERS, BIN_HEADERS, PASSAGE_HEADERS),
            glossary=glossary(context),
            versus=met,
            asides=_raw(packed([_aside(one, context, drawn) for one in met.others])) if met else "",
            policy=_policy(style, script),
            style=_raw(style),
            script=_raw(script),
        )
    )


def _parts(context: Context, drawn: Sequence[Chart]) -> dict[str, Any]:
    """What the templates of those parts need that depend on what is compared with."""
    names, known = [line.name for line in context.candidates], changes(context.explorer)
    flipped = {
        (one.variant, one.task) for one in context.explorer.counts if one.lost + one.gained + one.changed
    }
    return {
        "aside": context.aside,
        "context": context,
        "charts": {chart.id: chart for chart in drawn},
        "columns": COLUMNS,
        "changes": known,
        "patterns": listed(
            context.explorer.patterns,
            [result.variant.name for result in context.run.results],
            context.run.baseline,
        ),
        "flips_link": (link := functools.partial(_leading, context.run.baseline if context.aside else "")),
        "paired": {(one.variant, one.task): one.n for one in context.evidence.comparisons},
        "of_all": of_all,
        "counted": functools.partial(_counted, known, link),
        "subject_sentences": sentences(context.subjects, names),
        "subjects_alike": alike(context.subjects, names),
        "subject_extremes": extremes(context.subjects, names),
        "flips_of_task": lambda variant, task: (variant, task) in flipped,
        "swatch_class": lambda name: f"v{places(context.run).get(name, 0)}",
        "swatch": functools.partial(_swatch, places(context.run)),
        "among": next((one.among for one in context.evidence.findings.values()), 0),
        "group": next((column.row.id for column in context.columns if column.row.level == "macro"), ""),
        "average_first": sorted(
            range(len(context.columns)), key=lambda place: context.columns[place].row.level != "average"
        ),
        "proofs": proofs(context.evidence),
        "signs_of_proof": PROOFS,
        "margin": context.evidence.margin.told(),
        "marks": MARKS,
        "words": WORDS,
    }


def _aside(context: Context, own: Context, drawn: Sequence[Chart]) -> str:
    """The parts of the page against another reference: those that the page has, each with what there is."""
    there = {
        "masthead": True,
        "decided": True,
        "scores": bool(own.columns),
        "numbers": bool(own.columns),
        "saved": any(chart.id.startswith("cost-") for chart in drawn),
        "differences": any(chart.id.startswith("forest") for chart in drawn),
        "members": bool(own.subjects),
        "texts": bool(own.documents),
        "letters": bool(own.choices),
        "counts": bool(own.explorer.counts),
    }
    known = {
        "members": bool(context.subjects),
        "texts": bool(context.documents),
        "letters": bool(context.choices),
        "counts": bool(context.explorer.counts),
    }
    parts = [(name, known.get(name, True)) for name, on_the_page in there.items() if on_the_page]
    template = _environment().get_template("aside.html.j2")
    return template.render(**_parts(context, drawn), parts=parts)


def sections(context: Context, drawn: tuple[Chart, ...], *, past: bool = False) -> list[tuple[str, str]]:
    """(anchor, title) of the sections that this context has something for, in order."""
    kinds = {chart.id.partition("-")[0] for chart in drawn}
    wanted = [
        ("results", "Results", True),
        ("cost", "Quality and cost", bool(context.cost) or "cost" in kinds),
        ("differences", "Δ by task", "forest" in kinds),
        ("subjects", "By subject", bool(context.subjects)),
        ("perplexity", "Perplexity", bool(context.documents)),
        ("fidelity", "Fidelity", bool(context.fidelity.sentences)),
        ("choices", "Letters", bool(context.choices)),
        ("flips", "Flips", bool(context.explorer.counts)),
        ("past", "Over time", past),
        ("provenance", "Provenance", True),
        ("reproduce", "Reproduce", True),
        ("reading", "How to read this", True),
    ]
    return [(anchor, title) for anchor, title, there in wanted if there]


def as_script_data(value: Any) -> str:
    """JSON that can stand inside a <script> element: no character of it can end the element, and every
    character of its texts is seen where the script shows them."""
    from markupsafe import Markup

    text = json.dumps(_seen(plain(value)), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escape in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(character, escape)
    return Markup(text)  # noqa: S704 - escaped for its place just above


def _seen(value: Any) -> Any:
    """Plain data, its texts `visible`."""
    if isinstance(value, dict):
        return {visible(key): _seen(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_seen(entry) for entry in value]
    return visible(value) if isinstance(value, str) else value


def _policy(style: str, script: str) -> str:
    """A content security policy: no network at all, and only this very script and this very style."""
    allowed = f"script-src '{_hash(script)}'; style-src '{_hash(style)}'"
    return f"default-src 'none'; base-uri 'none'; form-action 'none'; {allowed}"


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _joined(names: Sequence[str]) -> str:
    place = files("qeval.report.formats") / "templates"
    return "".join((place / name).read_text(encoding="utf-8") for name in names)


def _raw(text: str) -> str:
    """A text of our own that is not to be escaped."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - from a file of this package


def breakable(text: str) -> str:
    """An escaped name that may be broken behind its underscores and slashes."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<=[_/])(?=.)", "<wbr>", str(escape(visible(text)))))  # noqa: S704 - escaped before


def whole(text: str) -> str:
    """An escaped sentence none of whose options is broken behind a hyphen."""
    from markupsafe import Markup, escape

    kept = re.sub(r"(?<![\w-])--[a-z][a-z-]*", r'<span class="keep">\g<0></span>', str(escape(visible(text))))
    return Markup(kept)  # noqa: S704 - escaped before


def _leading(reference: str, **filters: str) -> str:
    """The address of the explorer so filtered, against this variant; "" for the run's baseline."""
    return flips_link(**filters, **{"with": reference})


def _counted(
    known: Mapping[str, Mapping[str, Mapping[str, int]]],
    leading: Callable[..., str],
    row: Row,
    variant: str,
    change: str,
    text: str,
) -> str:
    """A number of changed answers, leading to the items where the explorer counts the same."""
    from markupsafe import Markup

    group = "" if row.level == "average" else row.members[0].group or row.members[0].name
    found = [by[variant] for task, by in known.items() if group in ("", task) and variant in by]
    n = sum(one[change] if change else sum(one.values()) for one in found)
    if not n or text != str(n):
        return text
    link = leading(variant=variant, task=group, change=change)
    return Markup('<a href="{}">{}</a>').format(link, numbers.typographic(numbers.count(n)))


def of_all(number: int, n: int) -> str:
    """Of how many items a number of changed answers is, and its share: "of 200 (7.5%)"."""
    return f"of {numbers.typographic(numbers.count(n))} ({numbers.percent(number / n)})"


def _swatch(known: Mapping[str, int], name: str) -> str:
    """A spot in the variant's colour, for eyes only: its name stands beside it."""
    number = known.get(name)
    return "" if number is None else _raw(f'<span class="swatch v{number}" aria-hidden="true"></span>')


def _svg(chart: Chart, *, narrow: bool = False) -> str:
    """A drawing of ours; vl-convert has escaped the names in it."""
    return _raw(chart.narrow if narrow else chart.svg)


def _shown(value: Any) -> Any:
    """What stands on the page for a value: numbers with typographic signs, of other texts every character,
    and markup of ours as it is."""
    if isinstance(value, numbers.Numeral):
        return numbers.typographic(value)
    return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("qeval.report.formats"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(
        count=numbers.count, slug=slugged, breakable=breakable, signs=numbers.signs, whole=whole
    )
    environment.globals.update(svg=_svg, dash=numbers.NONE)
    return environment


def small_page(template: str, *, forms: bool = False, **shown: Any) -> str:
    """A page without a script from a template of this folder, escaped as a report is; `forms`: what is chosen
    on it may be sent to where it came from."""
    style = _joined(("style.css", "strip.css"))
    leads = "'self'" if forms else "'none'"
    policy = f"default-src 'none'; base-uri 'none'; form-action {leads}; style-src '{_hash(style)}'"
    return _environment().get_template(template).render(policy=policy, style=_raw(style), **shown)


FORMAT = Format("html", (".html",), lambda context, options: render_html(context, options.history))
