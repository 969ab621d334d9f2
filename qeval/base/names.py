"""Names as a person, a file system and a web page can read them: slugs, and a scheme as it is written."""

from __future__ import annotations

import hashlib
import re

from qeval.base.records import Scheme


def slug(text: str, length: int = 40) -> str:
    """`text` as a file name: letters, digits, dot and dash, at most `length` characters."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-.")[-length:].strip("-.") or "run"


def scheme_text(scheme: Scheme) -> str:
    """The scheme as the user writes it: gptq[bits=3]@repo:revision."""
    options = ",".join(f"{key}={option_text(value)}" for key, value in scheme.options.items())
    text = f"{scheme.kind}[{options}]" if options else scheme.kind
    checkpoint = f"@{scheme.checkpoint}" if scheme.checkpoint else ""
    return f"{text}{checkpoint}{f':{scheme.revision}' if scheme.revision else ''}"


def option_text(value: object) -> str:
    """An option's value as the user writes it: true and false in small letters."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def slugged(text: str) -> str:
    """A name as a part of an HTML id or a file name: letters, digits and dashes, told apart by a hash."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()[:40]
    return (
        plain
        if plain == text
        else f"{plain or 'x'}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:6]}"
    )


def short(name: str, longest: int = 48) -> str:
    """A name that fits a table or a chart, its middle left out where it is longer than `longest`."""
    half = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[-half:]}"
