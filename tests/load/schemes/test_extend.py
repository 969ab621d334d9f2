"""A scheme is one file: here, as docs/extend/scheme.md shows it, or in a package that is installed."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_models import LINEARS, save_llama

from qeval.base.errors import QevalError, UsageError
from qeval.base.records import Scheme, Variant
from qeval.load import checks, packages, schemes
from qeval.load.resolve import identity
from qeval.load.schemes import SCHEMES, parse_schemes
from qeval.load.spec import SchemeSpec

NAME = "ternary_of_the_page"
PACKAGE = f"qeval_{NAME}"
PAGE = (Path(__file__).parents[3] / "docs" / "extend" / "scheme.md").read_text("utf-8")


def block(language: str) -> str:
    """The one block of code in a language on the page, its scheme under a name that nobody else takes."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found).replace("ternary", NAME)


@pytest.fixture
def ternary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SchemeSpec]:
    """The page's scheme, as a file in the folder of schemes."""
    (tmp_path / f"{NAME}.py").write_text(block("python"))
    monkeypatch.setattr(schemes, "__path__", [*schemes.__path__, str(tmp_path)])
    found = schemes.here()
    monkeypatch.setitem(SCHEMES, NAME, found[NAME])
    assert found.keys() == SCHEMES.keys()
    yield found[NAME]
    del sys.modules[f"qeval.load.schemes.{NAME}"]
    delattr(schemes, NAME)


def test_a_file_in_the_folder_is_a_scheme(ternary: SchemeSpec) -> None:
    ((name, scheme),) = parse_schemes(f"{NAME}[group_size=32]")
    assert (name, scheme) == (f"{NAME}[group_size=32]", Scheme(NAME, {"group_size": 32}))
    checks.check_available(scheme)
    assert ternary.unpacked
    assert list(ternary.defaults) == ["group_size", "skip_modules", "attention"]


@pytest.mark.torch
@pytest.mark.usefixtures("ternary")
@pytest.mark.parametrize(("options", "group"), [({}, 0), ({"group_size": 32}, 32)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page_s_scheme_loads_a_model(tmp_path: Path, options: dict[str, int], group: int) -> None:
    import torch
    from safetensors.torch import load_file

    from qeval.load.model import load
    from qeval.load.reading.proof import quantised_modules

    plain = save_llama(tmp_path / "llama")
    variant = Variant("v", str(plain), Scheme(NAME, options))
    loaded = load(variant, device="cpu", cache_dir=tmp_path / "cache")
    found = loaded.provenance
    assert found.modules == {"RoundedLinear": LINEARS}
    assert found.quantization == {"quant_method": NAME, "group_size": options.get("group_size", -1)}
    layers = quantised_modules(loaded.model)
    scales = sum(layer.weight.numel() / (group or layer.in_features) for layer in layers.values())
    weights = sum(layer.weight.numel() for layer in layers.values())
    assert found.bits_per_weight == pytest.approx(1.5849625 + 16 * scales / weights)
    before = load_file(plain / "model.safetensors")
    for name, layer in layers.items():
        rows = layer.weight.detach().reshape(-1, group or layer.in_features)
        assert max(len(row.unique()) for row in rows) == 3
        assert not torch.equal(layer.weight, before[f"{name}.weight"].float())
    assert any(f"{NAME} is simulated" in note for note in found.notes)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_simulated_scheme_that_changes_shapes_is_told_so(tmp_path: Path, monkeypatch) -> None:
    from qeval.load.model import load
    from qeval.load.reading.simulated import simulated

    spec = simulated("bad", "a mistake", lambda weight, _: weight[1:], lambda *_: 4.0)
    monkeypatch.setitem(SCHEMES, "bad", spec)
    plain = save_llama(tmp_path / "llama")
    with pytest.raises(
        QevalError, match=r"bad makes a weight of the shape \[63, 64\] out of one of \[64, 64\]"
    ):
        load(Variant("v", str(plain), Scheme("bad")), device="cpu", cache_dir=tmp_path)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_simulated_scheme_that_rounds_nothing_does_not_pass_as_quantised(
    tmp_path: Path, monkeypatch
) -> None:
    from qeval.load.model import load
    from qeval.load.reading.simulated import simulated

    spec = simulated("idle", "a mistake", lambda weight, _: weight, lambda *_: 4.0)
    monkeypatch.setitem(SCHEMES, "idle", spec)
    plain = save_llama(tmp_path / "llama")
    with pytest.raises(QevalError, match=f"idle has changed no weight of {LINEARS} layers"):
        load(Variant("v", str(plain), Scheme("idle")), device="cpu", cache_dir=tmp_path)


def install(place: Path, name: str, entries: dict[str, str], version: str = "1.0") -> None:
    """A distribution with these entry points, as pip leaves it."""
    info = place / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {value}" for key, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[qeval.schemes]", *lines, ""]))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of installed packages, and a table of schemes that has read nothing of it yet."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    before = set(sys.modules)
    monkeypatch.setattr(schemes, "SCHEMES", schemes.Table(SCHEMES))
    yield place
    for name in set(sys.modules) - before:
        if name.startswith("qeval_"):
            del sys.modules[name]


def add_package(site: Path) -> None:
    """The package of the page."""
    project = tomllib.loads(block("toml"))["project"]
    entries = project["entry-points"]["qeval.schemes"]
    (site / PACKAGE).mkdir()
    (site / PACKAGE / "__init__.py").touch()
    (site / PACKAGE / "scheme.py").write_text(block("python"))
    install(site, "qeval-page", entries, "1.3")


def test_a_package_brings_a_scheme_once_it_is_asked_for(site: Path) -> None:
    add_package(site)
    table = schemes.SCHEMES
    assert NAME not in table
    assert table.names()[-1] == NAME
    assert PACKAGE not in sys.modules
    parse_schemes("fp16,rtn")
    assert PACKAGE not in sys.modules
    ((_, scheme),) = parse_schemes(f"{NAME}[group_size=32]")
    assert scheme == Scheme(NAME, {"group_size": 32})
    assert table[NAME].packages[-1].distribution == "qeval-page"
    assert packages.missing_packages(table[NAME]) == []


def test_the_version_of_the_package_is_part_of_what_it_makes(site: Path, tmp_path: Path, monkeypatch) -> None:
    from qeval.load import resolve

    add_package(site)
    monkeypatch.setattr(resolve, "SCHEMES", schemes.SCHEMES)
    model = tmp_path / "m"
    model.mkdir()
    (model / "config.json").write_text("{}")
    found = identity(Variant("v", str(model), Scheme(NAME)), tmp_path / "cache")
    assert found["versions"]["qeval-page"] == "1.3"


def test_another_process_finds_it_too(site: Path) -> None:
    """A worker is one."""
    add_package(site)
    code = f"from qeval.load.schemes import SCHEMES; print(SCHEMES[{NAME!r}].name)"
    environment = {"PYTHONPATH": f"{site}:{Path(__file__).parents[3]}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == NAME


def test_a_misspelt_scheme_of_a_package_is_recognised(site: Path) -> None:
    add_package(site)
    with pytest.raises(UsageError, match="There is no scheme 'ternary_of_page'") as caught:
        parse_schemes("ternary_of_page")
    assert caught.value.hint == f"Did you mean {NAME!r}?"
    assert PACKAGE not in sys.modules


def test_a_scheme_of_ours_is_never_another_package_s(site: Path) -> None:
    install(site, "qeval-fake", {"rtn": "qeval_fake"})
    assert parse_schemes("rtn")[0].scheme == Scheme("rtn")


@pytest.mark.parametrize(
    ("entry", "code", "said"),
    [
        ("qeval_broken", None, "No module named 'qeval_broken'"),
        ("qeval_broken", "import no_such_library", "No module named 'no_such_library'"),
        ("qeval_broken", "", "has no attribute 'SPECS'"),
        ("qeval_broken", "SPECS = ()", "no scheme of that name is in qeval_broken"),
        ("qeval_broken", "raise RuntimeError('too old\\na Python')", "too old a Python"),
    ],
)
def test_a_broken_package_is_one_sentence_with_a_remedy(
    site: Path, entry: str, code: str | None, said: str
) -> None:
    install(site, "qeval-broken", {"odd": entry})
    if code is not None:
        (site / "qeval_broken.py").write_text(code)
    parse_schemes("fp16")  # nobody else is kept back
    with pytest.raises(QevalError) as caught:
        parse_schemes("odd")
    assert caught.value.message.startswith("The scheme 'odd' of the package qeval-broken cannot be used: ")
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint == "Update or reinstall it: pip install --upgrade qeval-broken"


def test_two_packages_with_the_same_scheme_are_refused(site: Path) -> None:
    install(site, "qeval-one", {"odd": "qeval_one"})
    install(site, "qeval-two", {"odd": "qeval_two"})
    with pytest.raises(
        QevalError, match="Several packages bring a scheme 'odd': qeval-one, qeval-two"
    ) as caught:
        parse_schemes("odd")
    assert caught.value.hint == "Uninstall all but one."


def test_no_other_file_names_the_schemes_in_a_list() -> None:
    """What makes a scheme known is that its file lies in the folder."""
    here = {path.stem for path in Path(schemes.__file__).parent.glob("*.py")} - {"__init__"}
    modules = [sys.modules[f"qeval.load.schemes.{name}"] for name in here]
    names = [spec.name for module in modules for spec in module.SPECS]
    assert sorted(names) == sorted(SCHEMES)  # none twice
    assert importlib.metadata.entry_points(group=schemes.GROUP).names == set()
