"""The README does what it says: its example is a plan, and its quick start is typed as it stands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from examples.stdlib_audit.workflow import workflow as audit
from interlock.core.plan import StepSpec
from tests.processes import spawn, tail, wait_until
from tests.servers import ROOT

from .reading import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

_README: Final = ROOT / "README.md"
_EXAMPLE_LINES: Final = 20
_READY_S: Final = 60.0
_TYPED_S: Final = 150.0
_STOP_S: Final = 30.0

_PACKING: Final = "time.sleep(5)"
_EXAMPLE, _CLIENT = blocks(_README, "python")
[_SECOND_TERMINAL] = [block for block in blocks(_README, "console") if block.startswith("interlock run ")]
[_DEV] = [block for block in blocks(_README, "console") if block.startswith("interlock dev ")]

_WAIT: Final = """
import time
from pathlib import Path

def wait(order):
    begun = Path(__file__).with_name("begun")
    if order["id"] == 8 and not begun.exists():
        begun.touch()
        time.sleep(15)
    time.sleep(0.2)
"""
_PLAN_OF_THE_EXAMPLE: Final = """
import json, shop
print(json.dumps(shop.workflow.to_dict()))
print(json.dumps(sorted(name for name in shop.app.tasks if not name.startswith("celery."))))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder with the example as `shop.py`; parcel 8 takes long at first, as two commands must fit into it."""
    assert _PACKING in _EXAMPLE
    (tmp_path / "packing.py").write_text(_WAIT)
    (tmp_path / "shop.py").write_text("import packing\n" + _EXAMPLE.replace(_PACKING, "packing.wait(order)"))
    return tmp_path


def _environment(**more: str) -> dict[str, str]:
    """As in a new terminal with the virtual environment active."""
    foreign = ("INTERLOCK_", "CELERY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", **more}


def _python(code: str, cwd: Path, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=_environment(**env), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _type(script: str, cwd: Path) -> tuple[int, str]:
    """Run the lines in a shell that stops at the first one that fails; nothing of it is left behind."""
    command = ["bash", "-euo", "pipefail", "-c", script]
    shell = subprocess.Popen(
        command,
        cwd=cwd,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=_TYPED_S)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        output, _ = shell.communicate()
        output += "\nit did not end in time"
    return shell.returncode, output


@pytest.fixture
def server(shop: Path) -> Iterator[dict[str, str]]:
    """The first terminal: `interlock dev` as the README has it; yields where its servers are."""
    log = shop / "first-terminal.log"
    program, *arguments = _DEV.split()
    command: list[str | Path] = [Path(sys.executable).with_name(program), *arguments]
    process = spawn(command, log=log, cwd=shop, parent_gone=signal.SIGTERM, env=_environment())
    try:
        wait_until(lambda: process.poll() is not None or "ready:" in tail(log), _READY_S, "`interlock dev` is ready")
        assert process.poll() is None, tail(log)
        yield json.loads((shop / ".interlock" / "server.json").read_text())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_STOP_S)


def test_the_example_is_short_and_its_plan_is_valid(shop: Path) -> None:
    lines = [line for line in _EXAMPLE.splitlines() if line.strip() and not line.startswith(("import ", "from "))]
    assert len(lines) <= _EXAMPLE_LINES
    plan, tasks = map(json.loads, _python(_PLAN_OF_THE_EXAMPLE, shop).splitlines())
    assert [step["key"] for step in plan["steps"]] == ["charge", "pack", "notify"]
    assert {step["task"] for step in plan["steps"]} == set(tasks)


@pytest.mark.timeout(300)
def test_the_quick_start_works_as_it_is_typed(shop: Path, server: dict[str, str]) -> None:
    """Every line of the second terminal is typed; the run that is paused on the way completes after its resume."""
    code, output = _type(_SECOND_TERMINAL, shop)
    assert code == 0, output
    for shown in ("is paused", "the printer is out of paper", "is executing", "parcel-8 is on its way, 5 paid"):
        assert shown in output
    printed = _python(
        _CLIENT, shop, INTERLOCK_DATABASE_URL=server["database_url"], CELERY_BROKER_URL=server["broker_url"]
    )
    assert "workflow completed" in printed
    assert "parcel-9 is on its way, 3 paid" in printed


def test_the_demo_has_as_many_steps_as_the_readme_says() -> None:
    [number] = re.findall(r"standard library in (\d+) steps", _README.read_text(encoding="utf-8"))
    assert len(audit.plan.steps) == int(number)


def test_what_a_step_can_say_is_what_the_plan_reads() -> None:
    said = _README.read_text(encoding="utf-8").partition("What a step can say")[2].partition("The\nrunning body")[0]
    names = set(re.findall(r"`(\w+)`", said))
    assert names
    assert names <= set(StepSpec.model_fields)
