"""A hook of hatchling: a package is described by README, with links that lead somewhere from an index."""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """Called whenever a package is built."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the description."""
        root = Path(self.root)
        published = runpy.run_path(str(root / "docs" / "site.py"))["published"]
        project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
        text = published((root / "README.md").read_text("utf-8"), project.get("urls", {}).get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
