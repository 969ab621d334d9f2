"""The parts of a page against other references, as a page carries them: plainly while small, else packed."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence

PLAIN = 200_000
"""Bytes up to which they stand in the page as they are; beyond, gzip makes a tenth of them, and the page's
script unpacks the one that is asked for."""


def packed(asides: Sequence[str]) -> str:
    """Markup that holds these pieces of markup, in their order, and shows none of them."""
    shortened = ["\n".join(line.strip() for line in text.splitlines() if line.strip()) for text in asides]
    if sum(len(text.encode()) for text in shortened) <= PLAIN:
        return "".join(f'<template class="aside">{text}</template>\n' for text in shortened)
    made = [base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode() for text in shortened]
    return f'<script type="application/json" id="asides">{json.dumps(made)}</script>\n'
