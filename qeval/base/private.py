"""What is nobody else's business: the home directory is written `~`, and secrets are not written at all."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

_SECRET = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASS|(?:[A-Z]*_?)?KEY|CREDENTIALS?|AUTH)(?:_|$)"
)
"""What an environment variable is called that holds a secret."""
_SHORTEST = 8
"""Characters of the shortest value that is taken for a secret: "1" and "true" stand in any text."""
_TOKENS = ("hf_", "ghp_", "gho_", "ghs_", "ghr_", "github_pat_", "glpat-", "sk-", "api_org_")
"""How tokens of known services begin."""
_LIKE_A_TOKEN = re.compile(rf"\b(?:{'|'.join(_TOKENS)})[A-Za-z0-9_-]{{20,}}")
_USER_OF_A_URL = re.compile(r"(?<=://)[^\s/@\"']+:[^\s/@\"']+(?=@)")
WITHHELD = "[withheld]"


def homeless(text: str) -> str:
    """The text, the home directory at the beginning of a path as `~`, which qeval takes wherever it reads a
    path."""
    home = str(_home())
    pattern = _pattern(home) if Path(home).name in text else None
    return pattern.sub("~", text) if pattern else text


def withheld(text: str) -> str:
    """The text without what is a secret by its looks, or the value of an environment variable that is one by
    its name."""
    for value in _secrets():
        text = text.replace(value, WITHHELD)
    if any(begin in text for begin in _TOKENS):  # which is sooner seen than what the pattern says
        text = _LIKE_A_TOKEN.sub(WITHHELD, text)
    return _USER_OF_A_URL.sub(WITHHELD, text) if "://" in text and "@" in text else text


def private(text: str) -> str:
    """`homeless` and `withheld`: what may stand in files that leave the machine."""
    return withheld(homeless(text))


def unsecret(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without its secrets, told by their names or by their looks, for what others keep."""
    return {
        name: value
        for name, value in environment.items()
        if not _SECRET.search(name.upper()) and not _LIKE_A_TOKEN.search(value)
    }


def _secrets() -> list[str]:
    found = {
        value
        for name, value in os.environ.items()
        if _SECRET.search(name.upper()) and len(value) >= _SHORTEST
    }
    plain = {value for value in found if not Path(value).exists()}  # a file with a token is no token
    return sorted(plain | {json.dumps(value)[1:-1] for value in plain}, key=len, reverse=True)


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # nobody's
        return Path("/")


@functools.cache
def _pattern(home: str) -> re.Pattern[str] | None:
    """A home that is no folder of its own is none; it may stand in JSON."""
    if len(Path(home).parts) < 2:  # noqa: PLR2004 - the root
        return None
    names = "|".join(re.escape(name) for name in {home, json.dumps(home, ensure_ascii=False)[1:-1]})
    return re.compile(rf"(?<![\w./~-])(?:{names})(?=$|[/\\\s\"'`,;:()\[\]|&])")
