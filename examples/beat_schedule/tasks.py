"""The task that beat sends, and those that the workflow consists of."""

from __future__ import annotations

from datetime import UTC, datetime

from interlock import Client, Step, Workflow

from .application import app


@app.task
def count_orders(day: str) -> int:
    """Counts the orders of a day; here, the days since the start of the year."""
    return datetime.fromisoformat(day).timetuple().tm_yday


@app.task
def write_report(day: str, orders: int) -> str:
    """Writes the report."""
    return f"{day}: {orders} orders"


counted = Step("count", count_orders, args=[{"$expr": "input.day"}])
written = Step("write", write_report, args=[{"$expr": "input.day"}, counted.result], after=counted)
report = Workflow("daily-report", "Report yesterday's orders", [counted, written])


@app.task
def enqueue_report() -> str:
    """Enqueues the report of this day, and returns the run's id.

    A tick that comes twice (two beats, a beat that was restarted, a message delivered again) finds the run that exists.
    """
    day = datetime.now(UTC).date().isoformat()
    with Client(app, actor="beat") as client:
        return client.enqueue(report, {"day": day}, idempotency_key=f"report-{day}")
