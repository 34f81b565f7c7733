"""What only imports, helps or completes starts light; what works loads what it needs then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from interlock import migrations

pytestmark = pytest.mark.integration

_INTERLOCK: Final = str(Path(sys.executable).with_name("interlock"))
_LIGHT: Final = [sys.executable, "-c", "import click, rich"]
_TIMES: Final = 3
_ROUNDS: Final = 3
_LIBRARIES: Final = [
    sys.executable,
    "-c",
    "import celery, click, jmespath, kombu.transport.redis, pydantic, rich.table, sqlalchemy.orm, yaml",
]
_MORE_THAN_LIBRARIES: Final = 1.5

_STARTS: Final = {
    "import interlock": ([sys.executable, "-c", "import interlock"], {}),
    "interlock --help": ([_INTERLOCK, "--help"], {}),
    "interlock list --help": ([_INTERLOCK, "list", "--help"], {}),
    "interlock completion zsh": ([_INTERLOCK, "completion", "zsh"], {}),
    "interlock pau<TAB>": (
        [_INTERLOCK],
        {"_INTERLOCK_COMPLETE": "zsh_complete", "COMP_WORDS": "interlock pau", "COMP_CWORD": "1"},
    ),
}

_WHAT_HELPS_LOAD: Final = """
import os, sys
from click.testing import CliRunner
import interlock
from interlock.cli.main import interlock as group

heavy = {"sqlalchemy", "alembic", "pydantic", "celery", "kombu", "redis"}

def runs(*typed, **env):
    result = CliRunner().invoke(group, typed, prog_name="interlock", env=env)
    assert result.exit_code == 0, (typed, result.output)
    loaded = heavy & set(sys.modules)
    assert not loaded, f"interlock {' '.join(typed)} loads {', '.join(sorted(loaded))}"

runs("--help")
runs(_INTERLOCK_COMPLETE="zsh_complete", COMP_WORDS="interlock ", COMP_CWORD="1")
for shell in ("bash", "zsh", "fish"):
    runs("completion", shell)
for name in group.list_commands(None):
    runs(name, "--help")
    runs(_INTERLOCK_COMPLETE="zsh_complete", COMP_WORDS=f"interlock {name} --", COMP_CWORD="2")
for name in ("upgrade", "current", "check"):
    runs("db", name, "--help")
"""

_WHAT_WORKERS_LOAD: Final = """
import sys
import interlock.worker.installation, interlock.worker.engine.engine
loaded = [name for name in sys.modules if name.startswith(("interlock.cli", "rich"))]
assert not loaded, loaded
"""


def _run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _least_cpu_s(*commands: tuple[list[str], dict[str, str]]) -> list[float]:
    """CPU time of each, run in turns, the least of several: a busy machine only adds. Compiled modules are kept."""
    rounds = [[_cpu_s(*command) for command in commands] for _ in range(_ROUNDS)]
    return [min(column) for column in zip(*rounds, strict=True)]


def _cpu_s(command: list[str], env: dict[str, str]) -> float:
    whole = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | env
    child = subprocess.Popen(command, env=whole, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, command
    return used.ru_utime + used.ru_stime


def test_no_help_and_no_completion_loads_a_database_a_model_or_celery() -> None:
    _run(_WHAT_HELPS_LOAD)


def test_a_worker_and_its_engine_load_no_command_line() -> None:
    _run(_WHAT_WORKERS_LOAD)


@pytest.mark.parametrize("start", _STARTS)
def test_a_light_start_costs_at_most_three_times_its_libraries(start: str) -> None:
    light, ours = _least_cpu_s((_LIGHT, {}), _STARTS[start])
    assert ours <= _TIMES * light, f"{ours * 1000:.0f} ms against {light * 1000:.0f} ms for click and rich"


def test_a_command_that_works_costs_little_more_than_its_libraries(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    migrations.upgrade(url)
    libraries, ours = _least_cpu_s((_LIBRARIES, {}), ([_INTERLOCK, "list", "--database-url", url], {}))
    assert ours <= _MORE_THAN_LIBRARIES * libraries, f"{ours * 1000:.0f} ms against {libraries * 1000:.0f} ms"
