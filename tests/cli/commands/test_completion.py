"""What a shell is offered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from interlock.cli.main import interlock

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(cli: Callable[..., Result], shell: str) -> None:
    output = cli("completion", shell).output
    assert f"_INTERLOCK_COMPLETE={shell}_complete" in output


def test_the_shell_is_offered_commands_and_options() -> None:
    environment = {"_INTERLOCK_COMPLETE": "zsh_complete", "COMP_WORDS": "interlock pau", "COMP_CWORD": "1"}
    result = CliRunner().invoke(interlock, prog_name="interlock", env=environment)
    assert "pause" in result.output
