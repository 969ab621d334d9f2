"""What pages name exists as written: headings, commands, options, schemes, variables, code, targets."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import click
import pytest

from qeval.base.errors import QevalError
from qeval.cli.main import main
from qeval.load.schemes import SCHEMES, parse_schemes

ROOT = Path(__file__).parents[1]
PLACES = (".", "docs", "docs/decisions", "docs/extend", "tasks", "benchmarks", "reports", "changelog.d")
PAGES = {
    str(page.relative_to(ROOT)): page for place in PLACES for page in sorted((ROOT / place).glob("*.md"))
}
WORKFLOWS = {
    str(page.relative_to(ROOT)): page
    for place in (".github/workflows", ".github/actions/gate", "docs/examples")
    for page in sorted((ROOT / place).glob("*.yml"))
}
EVERYWHERE = {**PAGES, **WORKFLOWS}
MADE = {"docs/cli.md", "docs/messages.md"}
"""Made of the code itself (docs/reference.py); messages name options of other tools too."""
OTHERS = {
    "docs/examples/judge-on-release.yml": {
        "--generate-notes",
        "--jq",
        "--status",
        "--verify-tag",
        "--workflow",  # gh
    },
    "docs/scale.md": {"--gres", "--mem", "--runtime-env-json", "--working-dir"},  # Slurm and Ray
    "docs/gate.md": {"--log_samples"},  # lm_eval
    "docs/extend/suite.md": {"--config"},
    "README.md": {"--use_cache"},
    "docs/schemes.md": {"--merge"},  # llama-gguf-split
    "docs/release.md": {"--strict"},  # twine
    "docs/extend/executor.md": {"--ahead"},  # the worker
    "changelog.d/README.md": {"--draft"},  # towncrier
    "changelog.d/+jobs.fixed.md": {"--cpus-per-gpu"},
}
"""Options of other tools, where a page names them."""
MISTYPED = {"runn", "--typo"}
"""What pages name as mistakes."""
PIP = {"--no-deps", "--no-build-isolation"}
_OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*\b(?!-?\*)")  # not --allow-*
_COMMAND = re.compile(r"(?<![\w/.-])qeval ([a-z]+)((?:\\\n|[^`\n])*)")
_ARGUMENT = re.compile(r"'[^'\n]*'")


@cache
def options() -> dict[str, set[str]]:
    """The options of each command; those of `qeval` itself under ""."""
    context = click.Context(main, **main.context_settings)  # commands keep the options that help is asked by
    found = {"": {word for one in main.get_params(context) for word in (*one.opts, *one.secondary_opts)}}
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        within = click.Context(command, parent=context, **command.context_settings)
        found[name] = {
            word for one in command.get_params(within) for word in (*one.opts, *one.secondary_opts)
        }
    return found


@cache
def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub and the site make them of its headings."""
    words = re.findall(r"^#+ (.*)$", without_code(text_of(page)), re.MULTILINE)
    words = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", word).lower().strip() for word in words]
    return {re.sub(r"[^\w\- ]", "", word).replace(" ", "-") for word in words}


def test_a_link_to_a_heading_finds_it() -> None:
    lost = []
    for name, page in PAGES.items():
        for path, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", without_code(text_of(page))):
            target = (page.parent / path).resolve() if path else page
            if "://" not in path and target.suffix == ".md" and anchor not in headings(target):
                lost.append((name, f"{path}#{anchor}"))
    assert lost == []


def test_a_fragment_links_from_where_the_changelog_stands() -> None:
    links = {
        (name, target)
        for name, page in PAGES.items()
        if name.startswith("changelog.d/+")
        for target in re.findall(r"\]\(([^)#\s]+)", text_of(page))
    }
    assert [link for link in sorted(links) if "://" not in link[1] and not (ROOT / link[1]).exists()] == []


def test_a_command_that_is_written_exists_and_has_its_options() -> None:
    wrong = []
    for name, page in EVERYWHERE.items():
        named = set(re.findall(r"`qeval ([a-z]+)", text_of(page))) - set(options()) - MISTYPED
        wrong += [(name, command) for command in sorted(named)]
        for command, rest in _COMMAND.findall(text_of(page)):
            line = re.split(r"\s#|&&|[|;]|\bqeval ", _ARGUMENT.sub("", rest))[0]
            known = options().get(command, set(_OPTION.findall(line))) | options()[""] | MISTYPED
            wrong += [(name, command, one) for one in _OPTION.findall(line) if one not in known]
    assert wrong == []


def test_an_option_that_is_named_is_one() -> None:
    wrong = []
    for name, page in EVERYWHERE.items():
        if name in MADE:
            continue
        text = text_of(page)
        scripts = {ROOT / path for path in re.findall(r"\b(?:benchmarks|docs)/\w+\.py\b", text)}
        if name == "benchmarks/RESULTS.md":  # it speaks of a script's options behind its commands, too
            scripts |= set((ROOT / "benchmarks").glob("*.py"))
        known = set().union(*options().values(), OTHERS.get(name, set()), PIP, MISTYPED)
        known |= {word for path in scripts for word in re.findall(r'"(--[a-z][\w-]*)"', text_of(path))}
        wrong += [(name, word) for word in sorted(set(_OPTION.findall(text)) - known)]
    assert wrong == []


def test_a_scheme_that_is_written_out_is_read() -> None:
    kinds, refused = "|".join(map(re.escape, SCHEMES)), []
    written = re.compile(rf"(?<![\w-])(?:{kinds})\[[^\]\n`$]*=[^\]\n`$]*\]")
    for name, page in EVERYWHERE.items():
        for text in set(written.findall(text_of(page))):
            try:
                parse_schemes(re.sub(r"=[A-Z]\]", "=1]", text))  # seed=N
            except QevalError as error:
                refused.append((name, text, error.message))
    assert [one for one in refused if "reads only ready checkpoints" not in one[2]] == []


def test_a_variable_that_is_named_is_read() -> None:
    code = "\n".join(map(text_of, sorted([*(ROOT / "qeval").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])))
    run = {f"QEVAL_RUN_{word.removeprefix('--').upper().replace('-', '_')}" for word in options()["run"]}
    named = {
        (name, word)
        for name, page in PAGES.items()
        for word in re.findall(r"\bQEVAL_[A-Z_]*[A-Z]\b", text_of(page))
    }
    assert [one for one in sorted(named) if one[1] not in run and one[1] not in code] == []


def test_a_name_in_a_file_is_defined_there() -> None:
    spoken = r"`([\w]+)(?:\([^`]*\))?` (?:of|in) `((?:qeval|tests|docs|benchmarks)/[\w/]+\.py)`"
    wrong = [
        (name, word, file)
        for name, page in PAGES.items()
        for word, file in re.findall(spoken, text_of(page))
        if not re.search(rf"\b(?:def|class) {word}\b|^{word}\b", text_of(ROOT / file), re.MULTILINE)
    ]
    assert wrong == []


def test_a_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = {word for page in PAGES.values() for word in re.findall(r"`make ([a-z][\w-]*)", text_of(page))}
    assert named - targets == set()


def test_every_decision_is_listed_by_its_title() -> None:
    pages = [(name, text_of(page)) for name, page in PAGES.items() if name.startswith("docs/decisions/0")]
    titles = [
        f"- [{text.splitlines()[0].removeprefix('# ')}]({name.rpartition('/')[2]})" for name, text in pages
    ]
    listed = [
        line for line in text_of(PAGES["docs/decisions/README.md"]).splitlines() if line.startswith("- ")
    ]
    assert listed == titles
    assert [int(title[3 : title.index(".")]) for title in titles] == list(range(1, len(titles) + 1))


def test_what_readme_counts_is_what_there_is() -> None:
    readme = text_of(PAGES["README.md"])
    assert f"transformers models in {len(SCHEMES)} schemes" in readme
    [counted] = re.findall(r"the engine with (\d+) architectures of transformers", readme)
    assert f"**{counted} architectures count" in text_of(PAGES["docs/architectures.md"])
    listed = set(re.findall(r"^\| `qeval ([a-z]+)` \|", readme, re.MULTILINE))
    assert listed == set(options()) - {""}


FASTER = r"\*\*The verdict comes"
MEASURED = {
    r"scoring is ([\d.]+) times as fast as by lm-eval's own": r"\*\*([\d.]+) times as fast compiled",
    r"with ([\d.]+) times its memory": r"suite was (14\.1) GiB against (37\.8) GiB",
    r"share nothing, gain ([\d.]+) times": r"\| long texts \|.*\| ([\d.]+) \|\n",
    r"`gate` were ([\d.]+) times as fast as lm-eval's own": rf"{FASTER} ([\d.]+) times sooner\.",
    r"7B shape, (\d+) s against (\d+)": r"\*\*whole\*\* \| 73.0 \| 57.5 \| ([\d.]+) \| ([\d.]+) \|",
    r"and (3\.\d) and (3\.\d) times with a model of 135 M": rf"{FASTER} (3\.\d) and (3\.\d) times sooner",
    r"about three times as long, (\d+) s against": r"scoring takes about (\d+) s",
    r"took ([\d.]+) to ([\d.]+) times as long on an H100": r"\| fp16 \| compiled .*\| (1\.00) \|[\s\S]*"
    r"\| gptq \| eager .*\| (1\.03) \|",
    r"and ([\d.]+) to ([\d.]+) times on an H200": r"\((1\.18)\), compiled 0.646 and 0.795 \((1\.23)\)",
    r"took (\d+) s on two H200s": r"`fp16,bnb4` \| 2 \| (129\.\d)",
    r"H200s and (\d+) s on one of another": r"`fp16,bnb4` \| 1 \| (269\.\d)",
    r"sixteen variants (\d+), (\d+) and (\d+) s": r"\| 1 \| (468\.\d) [\s\S]*"
    r"\| 2 \| (231\.\d) [\s\S]*\| 4 \| (109\.\d) ",
    r"two idle cores, and (\d+) while other work": r"the three variants took (671) s",
    r"leaves GPTQ out, and took ([\d:]+)\.": r"fp16 and bnb4 alone .*\| (75) \|",
    r"Quantising and scoring took ([\d:]+) minutes": r"fidelity included \| (148) \|",
}
"""Figures of time and speed in README, and where they stand in the results."""


@pytest.mark.parametrize("said", MEASURED)
def test_a_figure_of_speed_in_readme_is_one_of_the_results(said: str) -> None:
    """As it is there, or rounded; minutes there may be seconds, and a ratio may be of two figures."""
    readme = " ".join(text_of(PAGES["README.md"]).split())
    [found] = re.finditer(said, readme)
    measured = list(re.finditer(MEASURED[said], text_of(PAGES["benchmarks/RESULTS.md"])))
    assert measured, "the results say no such thing"
    figures = [float(one) for one in measured[0].groups()]
    told = set(found.groups())
    if len(figures) == 2 and len(told) == 1:
        figures = [figures[0] / figures[1]]
    ways = [
        {f"{one:.{digits}f}" for digits in range(3)}
        | {f"{one / 60:.0f}", f"{one // 60:.0f}:{one % 60:02.0f}"}
        for one in figures
    ]
    assert all(any(word in way for way in ways) for word in told), (told, figures)
