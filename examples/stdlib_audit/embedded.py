"""Runs the audit on an embedded server: all that the demo knows of it."""

from __future__ import annotations

from typing import Any

from interlock.cli.dev import embedded
from interlock.cli.run import follow

from .application import app
from .workflow import workflow


def run_embedded(out: str) -> tuple[str, list[dict[str, Any]]]:
    """Starts a server, runs the workflow with its progress on the screen, and stops the server.

    Args:
        out: Absolute path of the report.

    Returns:
        The run's final status and its history, a mapping of the event's fields per row.
    """
    with embedded(app) as client:
        run_id = client.enqueue(workflow, input={"out": out})
        status = follow(client, run_id)
        return str(status), list(client.history(run_id))
