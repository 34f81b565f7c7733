from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from interlock.cli.command_group import SECTIONS
from interlock.cli.main import interlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

COMMANDS = [name for section in SECTIONS.values() for name in section]


def _leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            yield from _leaves(command, (*path, name))
        else:
            yield (*path, name), command


LEAVES = list(_leaves(interlock))


def test_help_lists_every_command_in_its_section(cli: Callable[..., Result]) -> None:
    result = cli("--help")
    assert result.exit_code == 0
    for heading, names in SECTIONS.items():
        assert f"{heading}:" in result.output
        assert all(f"  {name} " in result.output for name in names)
    assert "..." not in result.output.partition("Run:")[2], "a first sentence is too long for its line"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_its_own_help_says_first(name: str) -> None:
    """The list is printed without importing the commands."""
    command = interlock.get_command(click.Context(interlock), name)
    [entry] = [entries[name] for entries in SECTIONS.values() if name in entries]
    assert command is not None
    assert entry.help == command.get_short_help_str(80)


@pytest.mark.parametrize("path", [path for path, _ in LEAVES if path != ("completion",)], ids=" ".join)
def test_the_help_of_each_command_has_examples_of_itself(cli: Callable[..., Result], path: tuple[str, ...]) -> None:
    result = cli(*path, "-h")
    assert result.exit_code == 0
    _, _, examples = result.output.partition("Examples:")
    lines = [line.strip() for line in examples.strip().splitlines()]
    assert lines
    assert all(line.startswith("interlock ") and path[-1] in line for line in lines)


@pytest.mark.parametrize("path", [path for path, _ in LEAVES], ids=" ".join)
def test_every_option_says_what_it_does(path: tuple[str, ...]) -> None:
    command = dict(LEAVES)[path]
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_a_mistyped_command_is_answered_with_the_one_meant(cli: Callable[..., Result]) -> None:
    result = cli("statsu", "x")
    assert result.exit_code == 2
    assert "Did you mean 'status'?" in result.output


def test_the_version_is_that_of_the_distribution(cli: Callable[..., Result]) -> None:
    assert cli("--version").output.startswith("interlock, version ")
