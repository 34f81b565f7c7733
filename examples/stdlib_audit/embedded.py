"""Runs the audit on an embedded server: all that the demo knows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from interlock.cli.commands.following import follow
from interlock.cli.dev.server import EmbeddedServer

from .workflow import workflow

APP: Final = "examples.stdlib_audit.application:app"
DATA_DIR: Final = Path("build/stdlib-audit/server")
"""Its database and logs stay there, to be looked at: `interlock list --data build/stdlib-audit/server`."""


def run_embedded(out: str) -> tuple[str, list[dict[str, Any]]]:
    """Starts a server, runs the workflow with its progress on the screen, and stops the server.

    Args:
        out: Absolute path of the report.

    Returns:
        The run's final status and its history, a mapping of the event's fields per row.
    """
    print("Starting a Redis, a database and a worker", flush=True)
    with EmbeddedServer(APP, DATA_DIR) as server, server.client() as client:
        run_id = client.enqueue(workflow, input={"out": out})
        print(f"Run {run_id}\n", flush=True)
        status = follow(client, run_id)
        return status, [change.data() for change in client.history(run_id)]
