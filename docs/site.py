"""A hook of MkDocs: pages from outside docs/ join the site, and links lead where they do in the repository.

`make site` builds it. A link to a file that is no page of the site leads to the repository where
pyproject.toml names it ([project.urls] Repository), and is plain text where it does not.
What a package's index shows of README follows the same rule (docs/readme.py).
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/RESULTS.md": "benchmarks.md",
    "tasks/README.md": "tasks.md",
}
"""Where pages of the repository that stand outside docs/ stand in the site."""
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from outside docs/."""
    from mkdocs.structure.files import File

    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's text, its links those of the site."""
    return relinked(markdown, page.file.src_uri, repository())


def repository() -> str | None:
    """Where the repository is read, by pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project.get("urls", {}).get("Repository")


def relinked(text: str, page: str, home: str | None) -> str:
    """A page's Markdown with links for the site; `page` is where it stands there: "extend/scheme.md"."""
    sources = {there: here for here, there in OUTSIDE.items()}
    folder = PurePosixPath(sources.get(page, f"docs/{page}")).parent
    parts = _FENCE.split(text)
    parts[::2] = [_LINK.sub(lambda found: _link(found, folder, page, home), part) for part in parts[::2]]
    return "".join(parts)


def _link(found: re.Match[str], folder: PurePosixPath, page: str, home: str | None) -> str:
    mark, words, target = found.groups()
    path, _, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", target):
        return found[0]
    real = os.path.normpath(folder / path)
    there = OUTSIDE.get(real)
    if there is None and PurePosixPath(real).is_relative_to("docs") and (ROOT / real).is_file():
        there = str(PurePosixPath(real).relative_to("docs")) if Path(real).suffix != ".py" else None
    if there is not None:
        short = os.path.relpath(there, PurePosixPath(page).parent)
        return f"{mark}[{words}]({short}{'#' + anchor if anchor else ''})"
    return f"{mark}[{words}]({home}/blob/HEAD/{real})" if home else words


def published(readme: str, home: str | None) -> str:
    """README for an index of packages, where nothing lies beside it: links to files lead to the repository.

    Without an address of the repository (`home`) the words of such a link stay, and pictures go.
    """

    def elsewhere(found: re.Match[str]) -> str:
        mark, words, target = found.groups()
        if target.startswith("#") or re.match(r"[a-z]+:", target):
            return found[0]
        if home is None:
            return "" if mark else words
        return f"{mark}[{words}]({home}/{'raw' if mark else 'blob'}/HEAD/{target})"

    parts = _FENCE.split(readme)
    parts[::2] = [_LINK.sub(elsewhere, part) for part in parts[::2]]
    return "".join(parts)


def strangers(site: Path) -> list[str]:
    """What pages of a built site would fetch from elsewhere: "PAGE: ADDRESS"."""
    fetched = re.compile(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]+)\"")
    within = re.compile(r"(?:url\(|@import\s+)['\"]?((?:https?:)?//[^'\")]+)")
    return [
        f"{file.relative_to(site)}: {address}"
        for file in sorted(site.rglob("*"))
        if file.suffix in {".html", ".css"}
        for address in (fetched if file.suffix == ".html" else within).findall(file.read_text("utf-8"))
        if 'rel="canonical"' not in address
    ]


if __name__ == "__main__":
    if found := strangers(ROOT / "build" / "site"):
        raise SystemExit("The site would fetch from elsewhere:\n" + "\n".join(found))
