"""Producers, operators and subscribers."""

from collections.abc import Generator
from typing import Any, assert_type

from interlock import Client, Workflow
from interlock.core import StateChange
from interlock.core.errors import AlreadyDecided, InterlockError, RunNotFound


def use(workflow: Workflow) -> None:
    """Call what a client has."""
    with Client(database_url="sqlite:///x.db", session_id="shop", actor="ann") as client:
        assert_type(client, Client)
        run_id = client.enqueue(workflow, {"id": 1}, idempotency_key="order-1")
        assert_type(run_id, str)
        client.pause(run_id, reason="out of paper", mode="drain")
        client.resume(run_id, "pack")
        client.approve(run_id, "ask", "fine", request_id="1")
        client.settle(run_id, "charge", {"paid": True}, "by bank transfer")
        assert_type(client.rerun(run_id), str)
        assert_type(client.status(run_id), dict[str, Any])
        assert_type(client.list(status="failed", limit=10), list[dict[str, Any]])
        assert_type(client.history(run_id), list[StateChange])
        assert_type(client.watch(run_id), Generator[StateChange])
        assert_type(client.wait(run_id, timeout_s=10), str)


async def follow(client: Client, run_id: str) -> int:
    """Follow a run in an event loop."""
    last = 0
    async for change in client.awatch(run_id, after_seq=last):
        assert_type(change, StateChange)
        assert_type(change.step_key, str | None)
        last = change.seq
    return last


def retryable(error: InterlockError) -> bool:
    """Tell errors apart by their types and attributes."""
    if isinstance(error, RunNotFound):
        return False
    if isinstance(error, AlreadyDecided):
        raise error
    assert_type(error.retryable, bool)
    return error.retryable
