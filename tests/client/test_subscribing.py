"""Following by the client, where nothing has to be waited for; the rest is in tests/client/following."""

from __future__ import annotations

import pytest

from interlock import Client, Step, Workflow
from interlock.client.following.watching import WatchTimeout


def test_a_run_that_has_ended_is_told_from_the_history_alone(migrated_sqlite_url: str) -> None:
    with Client(database_url=migrated_sqlite_url) as client:
        run_id = client.enqueue(Workflow("trip", "Book a trip.", [Step("flight", "trips.flight")]))
        with pytest.raises(WatchTimeout):
            client.wait(run_id, timeout_s=0.05)
        client.cancel(run_id)
        assert client.wait(run_id, timeout_s=5) == "cancelled"
        assert [change.seq for change in client.watch(run_id, after_seq=2, timeout_s=5)] == [
            change.seq for change in client.history(run_id, after_seq=2)
        ]
