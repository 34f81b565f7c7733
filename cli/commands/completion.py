"""`completion`: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command(
    "completion",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='bash: eval "$(interlock completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc; '
    "fish: interlock completion fish > ~/.config/fish/completions/interlock.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands and options."""
    maker = get_completion_class(shell)
    if maker is None:
        raise click.BadParameter(shell)
    click.echo(maker(ctx.find_root().command, {}, "interlock", "_INTERLOCK_COMPLETE").source())
