"""The model card of a checkpoint that qeval made: what made it, so that what was gated can be shipped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qeval.base.markdown import code, escape
from qeval.base.places import at_home
from qeval.base.private import private
from qeval.load.making.calibration import Calibration

TEXT = """\
---
{data}
---
# {model}, quantised by {scheme}

Made by qeval with {versions}. It loads with plain transformers:

```python
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("<this directory>")
```

| option | value |
|---|---|
{rows}

Made on {where}. Elsewhere sums are rounded otherwise, and the same command makes another checkpoint.

Identity of the base model: {identity}
Calibration: {calibration}

The licence of the base model holds for this checkpoint too.
"""


def write_card(
    directory: Path, model: str, scheme: str, made_of: Mapping[str, Any], where: str, text: Calibration
) -> None:
    """Write README.md for people and qeval.json for programs into a checkpoint's directory.

    The card shows what was calibrated on, where options left it open, and names no directory of this machine.
    """
    from huggingface_hub import ModelCard, ModelCardData

    told = private(json.dumps(made_of, indent=2, sort_keys=True, default=str))
    (directory / "qeval.json").write_text(f"{told}\n", "utf-8")
    seen = {"calibration": text.name, "samples": made_of["samples"], "length": text.length}
    settings = sorted({**made_of["options"], **made_of["plan"], **seen}.items())
    local = at_home(model).is_dir()
    card = TEXT.format(
        data=ModelCardData(
            base_model=None if local else model,
            base_model_relation=None if local else "quantized",
            library_name="transformers",
            pipeline_tag="text-generation",
            tags=[scheme, "quantized"],
        ).to_yaml(),
        model=escape(at_home(model).resolve().name if local else model),
        scheme=escape(scheme),
        versions=", ".join(f"{name} {version}" for name, version in made_of["versions"].items()),
        rows="\n".join(f"| {escape(str(name))} | {escape(str(value))} |" for name, value in settings),
        where=escape(where),
        identity=code(json.dumps(made_of["model"])),
        calibration=code(json.dumps(made_of["calibration"])),
    )
    ModelCard(private(card)).save(directory / "README.md")
