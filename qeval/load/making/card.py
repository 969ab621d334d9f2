"""The model card of a checkpoint that qeval made: what made it, so that what was gated can be shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_card(directory: Path, model: str, scheme: str, made_of: dict[str, Any]) -> None:
    """Write README.md for people and qeval.json for programs into a checkpoint's directory."""
    (directory / "qeval.json").write_text(
        json.dumps(made_of, indent=2, sort_keys=True, default=str) + "\n", "utf-8"
    )
    options = made_of.get("options", {})
    rows = "\n".join(
        f"| {name} | {value} |" for name, value in sorted({**options, **made_of.get("plan", {})}.items())
    )
    versions = ", ".join(f"{name} {version}" for name, version in made_of.get("versions", {}).items())
    (directory / "README.md").write_text(
        f"""---
base_model: {model}
tags: [{scheme}, quantized]
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

Identity of the base model: `{json.dumps(made_of.get("model"))}`
Calibration: `{json.dumps(made_of.get("calibration"))}`

The licence of the base model holds for this checkpoint too.
""",
        "utf-8",
    )
