"""`qeval completion`: the lines by which a shell completes commands, options, schemes, suites and runs."""

from __future__ import annotations

import click

from qeval.cli import options
from qeval.cli.meant import OneOf
from qeval.cli.speech import say


@click.command(cls=options.Strict)
@click.argument("shell", type=OneOf(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete commands, options, schemes, suites and runs."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    group = ctx.find_root().command
    if kind is not None:
        say(kind(group, {}, "qeval", "_QEVAL_COMPLETE").source())
