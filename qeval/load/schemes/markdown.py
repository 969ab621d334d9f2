"""The table of schemes as Markdown, for the documentation, which a test compares with it."""

from __future__ import annotations

from qeval.load.schemes import SCHEMES, SchemeSpec, install_command

CHECKPOINTS = {"no": "no", "optional": "or made here", "required": "only"}


def table() -> str:
    """One row for each scheme: what it is, what it needs, and on what it truly ran."""
    rows = [
        f"| `{spec.name}` | {spec.summary} | {CHECKPOINTS[spec.checkpoint]} | {_needs(spec)}"
        f" | {spec.verified} |"
        for spec in SCHEMES.values()
    ]
    return "\n".join(
        ["| scheme | what it is | ready checkpoints | needs | verified on |", "|---|---|---|---|---|", *rows]
    )


def options(spec: SchemeSpec) -> str:
    """A scheme's options with their defaults and choices."""
    lines = [f"### {spec.name}", ""]
    for option in spec.options:
        choices = f" ({', '.join(_word(choice) for choice in option.choices)})" if option.choices else ""
        lines.append(f"- `{option.name}={_word(option.default)}`: {option.help}{choices}")
    return "\n".join(lines if spec.options else [*lines, "No options."])


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _needs(spec: SchemeSpec) -> str:
    if spec.unavailable:
        return f"not available: {spec.unavailable}"
    if not spec.packages:
        return "nothing more"
    gpu = f", {spec.gpu}" if spec.gpu else ""
    return f"`{install_command(spec)}`{gpu}{'; neither with `unpack=true`' if _can_unpack(spec) else ''}"


def _can_unpack(spec: SchemeSpec) -> bool:
    return "unpack" in spec.defaults
