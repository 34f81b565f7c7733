"""`interlock doctor` as it is typed, on servers that run: a process of its own, whose JSON is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DEADLINE_S = 60.0

APP = """
import os
from celery import Celery
from interlock import install

app = Celery("shop", broker=os.environ["BROKER"], set_as_current=False)
app.conf.update(
    interlock_database_url=os.environ["DATABASE"],
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)
if not os.environ.get("PLAIN"):
    install(app)


@app.task(name="shop.pack")
def pack():
    return "packed"
"""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the command said.

    Attributes:
        exit_code: Its exit code.
        findings: All of it.
    """

    exit_code: int
    findings: list[dict[str, Any]]

    def severity(self, code: str) -> str | None:
        """How bad a check finds it, the worst of what it says; None where it says nothing."""
        order = ("error", "warning", "ok", "unknown")
        return min((each["severity"] for each in self.findings if each["code"] == code), key=order.index, default=None)

    def what(self, code: str) -> str:
        """What a check says."""
        return "; ".join(each["what"] for each in self.findings if each["code"] == code)

    def loud(self) -> dict[str, str]:
        """The checks that say more than ok."""
        return {each["code"]: each["what"] for each in self.findings if each["severity"] != "ok"}


class Shop:
    """A folder with an app, and the addresses that it gets."""

    def __init__(self, folder: Path, broker_url: str, database_url: str) -> None:
        self.folder = folder
        (folder / "shop.py").write_text(APP)
        own = {"BROKER": broker_url, "DATABASE": database_url, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("INTERLOCK", "CELERY"))}
        self.environment: Mapping[str, str] = {**inherited, **own}

    def diagnose(self, *words: str, timeout_s: float = 5.0) -> Diagnosis:
        """Run `interlock -A shop doctor` in the folder."""
        done = self.run("-m", "interlock.cli.main", "-A", "shop", "doctor", f"--timeout={timeout_s}", "--json", *words)
        assert done.returncode in (0, 1), done.stderr
        return Diagnosis(done.returncode, json.loads(done.stdout)["findings"])

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the folder."""
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=dict(self.environment),
            timeout=DEADLINE_S,
        )
