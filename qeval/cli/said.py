"""What a command was asked for, as words that can be typed again."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import click
from click.core import ParameterSource

from qeval.base.private import private


def said(ctx: click.Context, names: Collection[str]) -> tuple[str, ...]:
    """The options by these names of parameters that were typed, in the order of the command's own, as far as
    they are flags, texts and numbers."""
    words: list[str] = []
    for option in ctx.command.params:
        name = option.name or ""
        typed = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if typed and name in names and isinstance(option, click.Option):
            words += spelled(option, ctx.params[name])
    return tuple(map(private, words))


def spelled(option: click.Option, value: Any) -> list[str]:
    """An option with its value as a person writes it."""
    if option.is_flag:
        names = option.opts if value else option.secondary_opts
        return names[:1] if names else []
    values = value if option.multiple else [value]
    return [word for one in values for word in (key_option(option), str(one))]


def key_option(option: click.Option) -> str:
    """An option's long name."""
    return max(option.opts, key=len)
