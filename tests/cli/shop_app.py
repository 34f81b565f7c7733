"""An app and its workflows, as a user's module, for real servers: `tests.cli.shop_app`."""

from __future__ import annotations

import time
from pathlib import Path

from celery import Celery

from interlock import Step, Workflow

app = Celery("shop", broker="redis://production.invalid:6379/0", set_as_current=False)


@app.task
def add(left: int, right: int) -> int:
    """Add."""
    return left + right


@app.task
def refuse() -> None:
    """Fail."""
    message = "no such item: 17"
    raise ValueError(message)


@app.task
def wait_for(path: str) -> str:
    """Wait until a file is there."""
    while not Path(path).exists():
        time.sleep(0.05)
    return path


order = Workflow(
    "order",
    "Sum up an order",
    [
        Step("first", add, args=(1, 2)),
        Step("second", add, args=({"$expr": "results.first"}, {"$expr": "input.n"}), after=("first",), queue="rare"),
    ],
)
broken = Workflow("broken", "Fail", [Step("refuse", refuse), Step("never", add, args=(1, 1), after=("refuse",))])
waiting = Workflow("waiting", "Wait for a file", [Step("gate", wait_for, args=({"$expr": "input.path"},))])
