"""What the documentation says of schemes is what their files say; `make docs` writes it."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from qeval.load.schemes import SCHEMES

GENERATOR = Path(__file__).parents[3] / "docs" / "generate.py"


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(GENERATOR.parent))
        spec.loader.exec_module(module)
    return module


generate = load_generator()
verified = generate.verified


@pytest.mark.parametrize("page", generate.PAGES, ids=lambda page: page.name)
def test_what_is_generated_is_up_to_date(page: Path) -> None:
    text = page.read_text("utf-8")
    assert generate.generated(text) == text, "write it anew: make docs"


def test_every_block_stands_in_a_page() -> None:
    text = "".join(page.read_text("utf-8") for page in generate.PAGES)
    assert sorted(re.findall(r"<!-- generated: (.+?) -->", text)) == sorted(generate.BLOCKS)
    assert sorted(found[1] for found in generate.MARKED.findall(text)) == sorted(generate.BLOCKS)


def test_every_scheme_and_option_is_documented() -> None:
    text = (GENERATOR.parent / "schemes.md").read_text("utf-8")
    for spec in SCHEMES.values():
        assert f"| [`{spec.name}`](#{spec.name}) | {spec.summary} |" in text
        assert spec.doc in text
        _, _, below = text.partition(f"\n### {spec.name}\n")
        own = below.partition("\n### ")[0]
        assert re.findall(r"^- `(\w+)=", own, re.MULTILINE) == list(spec.defaults)


def test_every_scheme_stands_in_a_row_by_what_it_ran_on() -> None:
    rows = generate.schemes_by_run()
    for spec in SCHEMES.values():
        [row] = [row for row in rows.splitlines() if f"`{spec.name}`" in row]
        assert row.startswith(f"| {generate.ran_on(spec.verified)} |")


def test_what_ran_where_is_what_the_records_tell() -> None:
    assert json.loads(verified.TARGET.read_text("utf-8")) == verified.verified()
    assert {spec.verified for spec in SCHEMES.values()} <= {*verified.verified().values(), "not run"}


def test_a_record_counts_for_what_passed_on_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def case(told: str, outcome: str = "") -> str:
        return (
            f'<testcase><properties><property name="scheme" value="{told}"/></properties>{outcome}</testcase>'
        )

    cases = [
        case("gptq on cuda"),
        case("fp16 on cpu"),  # a test on a GPU compares with a CPU
        case("awq on cuda", "<failure/>"),
        case("hqq on cuda", "<skipped/>"),
        case("fp8 unpacked on cuda"),
    ]
    device = '<properties><property name="device" value="NVIDIA H100 80GB HBM3"/></properties>'
    (tmp_path / "gpu.xml").write_text(
        f"<testsuites><testsuite>{device}{''.join(cases)}</testsuite></testsuites>"
    )
    cpu = '<properties><property name="device" value="CPU"/></properties>'
    (tmp_path / "cpu.xml").write_text(
        f"<testsuites><testsuite>{cpu}{case('gptq on cpu')}{case('fp8 on cpu')}</testsuite></testsuites>"
    )
    monkeypatch.setattr(verified, "RECORDS", tmp_path)
    assert verified.verified() == {"gptq": "CPU, H100", "fp8": "CPU"}
    (tmp_path / "cpu.xml").unlink()
    assert verified.verified() == {"gptq": "H100", "fp8": "H100, unpacked"}


@pytest.mark.parametrize(
    ("device", "short"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("CPU", "CPU"),
        ("NVIDIA GeForce RTX 4090", "4090"),
    ],
)
def test_devices_have_short_names(device: str, short: str) -> None:
    assert verified.short(device) == short


def test_a_page_out_of_date_is_written_anew() -> None:
    text = "before\n<!-- generated: schemes -->\nold\n<!-- end of schemes -->\nafter\n"
    assert generate.generated(text) == (
        f"before\n<!-- generated: schemes -->\n\n{generate.schemes()}\n\n<!-- end of schemes -->\nafter\n"
    )
