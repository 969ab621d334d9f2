"""`qeval view` of several runs: what each address gives, and what none of them can be made to give."""

from __future__ import annotations

import html
import io
import re
import shutil
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from urllib.parse import parse_qsl, quote

import pytest
from bad_files import put
from factories import ARC, WIKI
from fidelity_streams import measured
from stored import changed, store, whole

from qeval.base.protocols import Protocol
from qeval.cli import pages, serving
from qeval.cli.pages import Site
from qeval.report.history.picking import Entry, listing
from qeval.score.fidelity import toy
from qeval.store import fidelity

NASTY = "<img src=x onerror=alert(1)>&\"'"


def made_of(model, made=None):
    """A made run whose variants are of this model."""
    made = made or whole()
    for place, result in enumerate(made[0].results):
        made = changed(made, place, variant=replace(result.variant, model=model))
    return replace(made[0], model=model), *made[1:]


def keyed(made, tag):
    """The made run with keys of cells that no other run has, as theirs are hashes."""
    run, read, items = made
    old = {}
    for place, result in enumerate(run.results):
        cells = tuple(replace(cell, key=f"{tag}-{cell.key}") for cell in result.cells)
        old |= dict(zip((cell.key for cell in cells), result.cells, strict=True))
        run = changed((run, read, items), place, cells=cells)[0]
    return run, lambda cell: read(old[cell.key]), lambda cell: items(old[cell.key])


@pytest.fixture(scope="module")
def some_runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("some") / "runs"
    store(place, whole(), id="a", created="2026-01-01T00:00:00+00:00")
    store(place, keyed(whole(churn=0.2), "b"), id="b", created="2026-01-02T00:00:00+00:00")
    store(place, whole(n_items=100), id="short", created="2026-01-03T00:00:00+00:00")
    store(place, whole(tasks=(WIKI,)), id="wiki", created="2026-01-04T00:00:00+00:00")
    store(place, made_of("other/model"), id="other", created="2026-01-05T00:00:00+00:00")
    put(place / "damaged" / "run.json", "empty")
    return place


@pytest.fixture
def site(some_runs, runs_dir):
    return Site(shutil.copytree(some_runs, runs_dir))


def text(page):
    return html.unescape(re.sub(r"<style>.*?</style>|<script.*?</script>|<[^>]+>", "", page, flags=re.DOTALL))


def test_the_list_has_every_run_the_newest_first_and_links(site):
    status, page = site.page("/", {})
    assert status == 200
    assert re.findall(r'href="/report/([^"]+)"', page) == ["other", "wiki", "short", "b", "a"]
    assert "damaged: run.json" in text(page)
    assert '<option value="a/bnb4">' in page
    assert "/history?model=toy&amp;suite=toy" in page
    assert "<script" not in page


@pytest.mark.slow
def test_each_run_leads_to_the_report_that_the_command_writes(site, qeval, tmp_path):
    qeval("report", "a", "-o", tmp_path / "r.html")
    assert site.page("/report/a", {}) == (200, (tmp_path / "r.html").read_text())


@pytest.mark.slow
def test_two_variants_of_two_runs_are_paired(site):
    status, page = site.page("/compare", {"one": "a/fp16", "other": "b/bnb4"})
    assert status == 200
    assert "bnb4 against fp16" in text(page)
    assert "different models" not in text(page)
    status, page = site.page("/compare", {"one": "a/bnb4", "other": "b/bnb4"})
    assert status == 200
    assert "bnb4@b against bnb4@a" in text(page)


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ("a/fp16", "short/bnb4", "not the same experiment"),
        ("a/fp16", "wiki/bnb4", "no row on which both have all items"),
        ("a/fp16", "other/bnb4", "of different models"),
        ("a/fp16", "a/fp16", "same variant was picked twice"),
        ("a/fp16", "copy/fp16", "very same scored items"),
        ("a/fp16", "a/gone", "has no variant 'gone'"),
        ("a/fp16", "damaged/bnb4", "truncated or damaged"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_says_why(site, runs_dir, one, other, says):
    store(runs_dir, whole(), id="copy")
    status, page = site.page("/compare", {"one": one, "other": other})
    assert status == 409
    assert says in text(page)


@pytest.mark.usefixtures("undrawn")
def test_different_models_are_compared_where_that_is_ticked(site):
    asked = {"one": "a/fp16", "other": "other/bnb4"}
    assert "tick that their models may differ" in text(site.page("/compare", asked)[1])
    status, page = site.page("/compare", {**asked, "models": "any"})
    assert (status, "bnb4 against fp16, of different models" in page) == (200, True)
    assert replace(site, any_model=True).page("/compare", asked)[0] == 200


def test_lines_lead_to_reports_and_back(site):
    status, page = site.page("/history", {"model": "toy", "suite": "toy", "variant": "bnb4"})
    assert status == 200
    assert 'href="/report/a"' in page
    assert 'href="/"' in page
    assert "the line is broken" in text(page).lower()


@pytest.mark.parametrize(
    "path",
    [
        "/report/../a",
        "/report/a/../b",
        "/report/%2e%2e",
        "/report/..",
        "/report/",
        "/report//etc/passwd",
        "/report/a/run.json",
        "/a/run.json",
        "//",
        "/report/\0",
        "/nothing",
        "",
    ],
)
def test_no_address_leads_anywhere_else(site, path, runs_dir):
    store(runs_dir.parent, whole(), id="outside")
    for address in (path, path.replace("/a", "/../outside")):
        status, page = site.page(address, {})
        assert status == 404
        assert "Nothing to show" in page
    assert site.page("/compare", {"one": "../outside/fp16", "other": "a/bnb4"})[0] == 404
    assert site.page("/compare", {})[0] == 404


@pytest.mark.slow
def test_names_with_html_in_them_are_text(runs_dir):
    made = made_of(NASTY)
    made = changed(made, 1, variant=replace(made[0].results[1].variant, name=NASTY))
    store(runs_dir, (replace(made[0], suite=replace(made[0].suite, name=NASTY)), *made[1:]), id="a<b>&'\"c")
    site = Site(runs_dir)
    name = next(iter(site._places()))
    for address, asked in (
        ("/", {}),
        (f"/report/{name}", {}),
        ("/history", {}),
        ("/compare", {"one": f"{name}/fp16", "other": f"{name}/{NASTY}"}),
        ("/compare", {"one": f"{name}/{NASTY}", "other": NASTY}),
        (f"/report/{NASTY}", {}),
    ):
        page = site.page(address, asked)[1]
        assert "<img" not in page
        assert "a<b>" not in page
    listed = site.page("/", {})[1]
    assert quote(name, safe="") in listed


@pytest.mark.usefixtures("undrawn")
def test_redacted_nothing_names_a_path(runs_dir):
    store(runs_dir, made_of("/secret/model"), id="secret-model-1")
    site = Site(runs_dir, redact=True)
    (name,) = site._places()
    for address in ("/", "/history", f"/report/{name}"):
        status, page = site.page(address, {})
        assert (status, "secret" in page) == (200, False)


@pytest.fixture
def secret(runs_dir):
    """Runs of two models that are paths, one of whose variants is named by its checkpoint."""
    for day, model in enumerate(("/secret/a", "/secret/b", "/secret/a"), 1):
        made = keyed(made_of(model), f"m{day}")
        scheme = replace(made[0].results[1].variant.scheme, checkpoint=f"{model}-4bit")
        made = changed(
            made, 1, variant=replace(made[0].results[1].variant, name=f"awq={model}-4bit", scheme=scheme)
        )
        made = (replace(made[0], command=("qeval", "run", "--model", model)), *made[1:])
        store(runs_dir, made, id=f"secret-{day}", created=f"2026-01-0{day}T00:00:00+00:00")
    return Site(runs_dir, redact=True)


def offered(site):
    """What the list offers to compare, and the histories that it leads to, as a browser asks for them."""
    page = site.page("/", {})[1]
    links = [html.unescape(one) for one in re.findall(r'href="/history\?([^"]+)"', page)]
    values = [html.unescape(one) for one in re.findall(r'<option value="([^"]+)"', page)]
    return list(dict.fromkeys(values)), [dict(parse_qsl(one)) for one in links]


@pytest.mark.slow
def test_redacted_what_the_list_offers_is_found(secret):
    values, links = offered(secret)
    assert len(values) == 6
    for one in values:
        for other in values:
            status, page = secret.page("/compare", {"one": one, "other": other, "models": "any"})
            assert (status, "secret" in page) == (409 if one == other else 200, False)
    histories = [secret.page("/history", asked) for asked in links]
    assert [status for status, _ in histories] == [200, 200]
    assert all('class="strip"' in page for _, page in histories)
    assert sorted(re.search(r"(\d) runs?", text(page))[1] for _, page in histories) == ["1", "2"]
    assert not any("secret" in page for _, page in histories)


@pytest.mark.slow
def test_redacted_fidelity_is_shown_of_a_variant_named_by_its_path(secret, monkeypatch):
    stream = toy.stream(Protocol("prose", "prose"))
    one = measured(stream, variant="awq=/secret/a-4bit")
    monkeypatch.setattr(fidelity, "of_run", lambda *_: ((one,), ()))
    monkeypatch.setattr(fidelity, "positions", lambda *_: toy.invented(stream, 0.03, "x"))
    monkeypatch.setattr(fidelity, "stream", lambda *_: stream)
    values = offered(secret)[0]
    run = next(value.partition("/")[0] for value in values if "[path 1]" in value)
    mine = [value for value in values if value.startswith(f"{run}/")]
    pages = [
        secret.page("/compare", dict(zip(("one", "other"), mine, strict=True))),
        secret.page(f"/report/{run}", {}),
        secret.page("/history", {}),
    ]
    assert [status for status, _ in pages] == [200, 200, 200]
    assert [one.protocol.name in text(page) for _, page in pages] == [True, True, True]
    assert "secret" not in "".join(page for _, page in pages)


@pytest.mark.slow
def test_redacted_a_refusal_names_no_path(secret, runs_dir):
    values, _ = offered(secret)
    cell = next((runs_dir / "secret-2" / "cells").glob("*")) / "samples.parquet"
    cell.write_bytes(cell.read_bytes()[:-9])
    pages = {
        (one, other): secret.page("/compare", {"one": one, "other": other})
        for one in values
        for other in values
    }
    assert {status for status, _ in pages.values()} == {200, 409}
    shown = " ".join(page for _, page in pages.values())
    assert "of different models" in shown
    assert "damaged" in shown
    assert "secret" not in shown
    for path in ("/report/" + value.partition("/")[0] for value in values):
        assert "secret" not in secret.page(path, {})[1]
    assert "secret" not in replace(secret, names=("secret-1", "secret-9")).page("/", {})[1]


def test_named_runs_alone_are_shown(site):
    page = replace(site, names=("a", "b")).page("/", {})[1]
    assert re.findall(r'href="/report/([^"]+)"', page) == ["b", "a"]
    assert replace(site, names=("a", "b")).page("/report/other", {})[0] == 404


@pytest.mark.usefixtures("undrawn")
def test_over_http_it_answers_its_own_name_and_runs_by_theirs(site, runs_dir):
    odd = "no\udcff utf-8?#&%2f"
    store(runs_dir, whole(), id="odd")
    (runs_dir / "odd").rename(runs_dir / odd)
    with serving.server(site.page, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        root = f"http://127.0.0.1:{server.server_address[1]}"

        def ask(path, **headers):
            try:
                with urllib.request.urlopen(urllib.request.Request(root + path, headers=headers)) as answer:
                    return answer.status, answer.read().decode(), answer.headers
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode(), error.headers

        status, page, headers = ask("/compare?one=a%2Ffp16&other=b%2Fbnb4")
        assert (status, "bnb4 against fp16" in page) == (200, True)
        assert (headers["X-Frame-Options"], headers["Referrer-Policy"]) == ("DENY", "no-referrer")
        assert ask("/", Host="evil.example")[:2] == (421, "")
        assert ask("/report/" + quote(odd, errors="surrogateescape"))[0] == 200
        assert [ask(path)[0] for path in ("/report/%2e%2e%2fa", "/report/%ff", "/?" + "a=1&" * 50)] == [
            404
        ] * 3
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("undrawn")
def test_view_serves_the_list_unless_one_run_is_named(qeval, runs_dir, monkeypatch):
    from qeval.cli import view

    served = []
    monkeypatch.setattr(view, "_serve", lambda found, _, what: served.append((found("/", {})[1], what)))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "no run in" in qeval("view", code=1).stderr
    for name in ("a", "b"):
        store(runs_dir, whole(), id=name)
    qeval("view")
    qeval("view", "a", "b", "--port", "0")
    qeval("view", "a")
    assert [what for _, what in served] == ["the runs", "the runs", "the report"]
    assert "<title>Runs</title>" in served[0][0]
    assert "What quantisation cost" in served[2][0]
    assert "There is no run 'c'" in qeval("view", "a", "c", code=1).stderr


def test_a_list_without_anything_to_compare_offers_nothing():
    page = listing([Entry("a", "/report/a")])
    assert "<form" not in page
    assert "No run here has two variants to compare" in page


def test_a_stop_of_a_run_is_not_another_baselines():
    from qeval.base.records import Rule, Stop

    made = changed(whole(), 1, stop=Stop("arc", Rule(max_drop=1.0), 10, 400), status="stopped")
    run = made[0]
    joined = pages.versus((run, run.results[0]), (run, run.results[1]), any_model=False)
    assert joined.results[1].stop is None
    assert ARC.name in {cell.task.name for cell in joined.results[1].cells}


def test_what_is_unforeseen_is_told_on_both_sides(monkeypatch):
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", printed)

    def broken(path, asked):
        raise ZeroDivisionError(path, asked)

    with serving.server(broken, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with pytest.raises(urllib.error.HTTPError, match="500") as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/")
        caught.value.close()
        until = time.monotonic() + 120  # the browser is told first
        while (
            printed.getvalue().count("-" * 40) < 2 and time.monotonic() < until
        ):  # the browser is told first
            time.sleep(0.01)
        server.shutdown()
        thread.join()
    assert "ZeroDivisionError" in printed.getvalue()


@pytest.mark.usefixtures("undrawn")
def test_fidelity_of_two_runs_is_not_mixed(site, monkeypatch):
    monkeypatch.setattr(pages.options, "_fidelity", lambda *_: "what was measured against another baseline")
    assert site.page("/compare", {"one": "a/fp16", "other": "b/bnb4"})[0] == 200
