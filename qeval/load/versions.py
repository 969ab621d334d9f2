"""Versions of the libraries that can change numbers, read without importing them."""

from __future__ import annotations

CORE = ("torch", "transformers")


def versions(*distributions: str) -> dict[str, str]:
    """The installed versions of torch, transformers and `distributions`; what is absent is left out."""
    found = {}
    for name in (*CORE, *distributions):
        version = version_of(name)
        if version is not None:
            found[name] = version
    return found


def version_of(distribution: str) -> str | None:
    """The installed version, None where the distribution is absent."""
    from importlib import metadata  # costs 20 ms at start-up

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
