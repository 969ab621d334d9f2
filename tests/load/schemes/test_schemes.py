"""The table of schemes, what it costs to import, what is missing, and the identity of a variant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_models import edit_json

from qeval.base.errors import MissingPackageError
from qeval.base.installed import Origin
from qeval.base.records import Scheme, Variant
from qeval.load import packages
from qeval.load.checks import check_available
from qeval.load.resolve import identity, resolve
from qeval.load.schemes import SCHEMES

ROOT = Path(__file__).parents[3]


def test_importing_the_table_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'bitsandbytes', 'gptqmodel', 'numpy', 'huggingface_hub'}"
    code = f"import sys, qeval.load.schemes; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_is_described(name: str) -> None:
    spec = SCHEMES[name]
    assert spec.name == name
    assert spec.summary
    assert all(option.help for option in spec.options)
    assert all(not option.choices or option.default in option.choices for option in spec.options)
    assert all(isinstance(option.default, option.type) for option in spec.options)
    assert set(spec.config_keys) <= set(spec.defaults)
    assert spec.checkpoint == "no" or spec.methods
    assert spec.extra is None or spec.packages


def test_every_extra_installs_what_the_scheme_needs() -> None:
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]

    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[\[<>=~]", line)[0] for line in lines}

    for spec in SCHEMES.values():
        if spec.extra is not None:
            installed = names(extras[spec.extra]) | names(project["dependencies"])
            assert {package.distribution for package in spec.packages} <= installed


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(packages, "version_of", lambda _: None)
    with pytest.raises(MissingPackageError) as caught:
        check_available(Scheme("bnb4"))
    assert caught.value.message == "bnb4 needs bitsandbytes and accelerate."
    assert caught.value.hint == "In qeval's checkout, install it with: pip install '.[bnb]'"
    with pytest.raises(MissingPackageError) as caught:
        check_available(Scheme("gptq"))
    words = f"{packages.installed.NOT_ISOLATED}'.[gptq]'"
    assert caught.value.hint == f"In qeval's checkout, install it with: {words}"
    monkeypatch.setattr(packages.installed, "origin", lambda: Origin("index"))
    with pytest.raises(MissingPackageError) as caught:
        check_available(Scheme("bnb4"))
    assert caught.value.hint == "Install it with: pip install 'qeval[bnb]'"
    check_available(Scheme("fp16"))


def test_a_package_that_is_too_old_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(packages, "version_of", lambda name: "0.40" if name == "bitsandbytes" else "9")
    with pytest.raises(MissingPackageError, match=r"bnb8 needs bitsandbytes >= 0\.46"):
        check_available(Scheme("bnb8"))


@pytest.mark.parametrize(
    ("options", "revision"),
    [
        ({}, "main"),
        ({"act_order": True}, "gptq-4bit-128g-actorder_True"),
        ({"bits": 4, "group_size": 128}, "main"),
        ({"backend": "torch"}, "main"),
        ({"bits": 3}, None),
        ({"group_size": 32}, None),
        ({"calibration": "c4"}, None),
        ({"damp": 0.05}, None),
    ],
)
def test_plain_gptq_looks_into_the_catalogue_first(options: dict, revision: str | None) -> None:
    found = resolve(Variant("gptq", "meta-llama/Llama-2-13b-hf", Scheme("gptq", options)))
    if revision is None:
        assert found.ready is None
        assert "quantised here, with 128 samples of 2048 tokens" in found.sentence
    else:
        assert found.ready is not None
        assert (found.ready.path, found.ready.revision) == ("TheBloke/Llama-2-13B-GPTQ", revision)
        assert revision in found.sentence


def test_a_named_checkpoint_comes_before_the_catalogue() -> None:
    found = resolve(Variant("g", "meta-llama/Llama-2-13b-hf", Scheme("gptq", {}, "me/mine", "v2")))
    assert found.ready is not None
    assert (found.ready.path, found.ready.revision) == ("me/mine", "v2")


def write_model(directory: Path) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def test_the_identity_holds_all_that_can_change_numbers(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    text = tmp_path / "t.txt"
    text.write_text("some text")

    def key(scheme: Scheme, **fields: str) -> str:
        variant = Variant("any name", str(model), scheme, **fields)
        return json.dumps(identity(variant, tmp_path / "cache"), sort_keys=True)

    own = Scheme("gptq", {"calibration": str(text)})
    first = key(own)
    keys = {
        first,
        key(Scheme("gptq", {"calibration": str(text), "bits": 3})),
        key(Scheme("gptq", {"calibration": str(text), "seed": 1})),
        key(Scheme("gptq", {"calibration": "own"})),
        key(Scheme("gptq", {}, str(model))),
        key(Scheme("bnb4")),
        key(Scheme("bnb4", {"quant_type": "fp4"})),
    }
    assert len(keys) == 7
    assert key(Scheme("bnb4", {"quant_type": "nf4"})) == key(Scheme("bnb4"))  # the default, written out
    assert key(own) == first
    text.write_text("some other text")
    assert key(own) != first
    edit_json(model / "config.json", rope_theta=5)
    assert key(Scheme("bnb4")) not in keys


def test_the_identity_holds_the_adapter_and_whether_it_is_merged(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    place = tmp_path / "a"
    place.mkdir()
    (place / "adapter_config.json").write_text("{}")

    def key(adapter: str | None) -> Any:
        return identity(Variant("v", str(model), Scheme("fp16"), adapter=adapter), tmp_path / "c")["adapter"]

    assert key(None) is None
    assert key(str(place))["merged"] is False
    assert key(f"merged:{place}") == {**key(str(place)), "merged": True}


def test_the_identity_names_the_libraries_that_count(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m")
    found = identity(Variant("v", str(model), Scheme("bnb4")), tmp_path / "cache")
    assert set(found["versions"]) == {"torch", "transformers", "bitsandbytes", "accelerate"}
