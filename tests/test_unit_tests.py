"""What keeps unit tests without servers."""

from __future__ import annotations

import socket
import subprocess
import sys
from threading import Thread

import pytest
from _pytest.outcomes import Failed

from tests.servers import SharedPostgres


def test_a_unit_test_that_starts_a_process_is_refused() -> None:
    with pytest.raises(
        Failed, match=r"starts a process: mark it with @pytest\.mark\.integration.*a_unit_test_that_starts"
    ):
        subprocess.run([sys.executable, "-c", ""], check=True)


def test_a_unit_test_that_connects_to_a_server_is_refused() -> None:
    with socket.socket() as client, pytest.raises(Failed, match="connects to a server"):
        client.connect(("127.0.0.1", 1))


def test_a_unit_test_that_asks_for_the_shared_server_is_refused_whether_it_runs_or_not() -> None:
    with pytest.raises(Failed, match="uses PostgreSQL"):
        SharedPostgres().__enter__()


def test_what_a_test_before_has_left_running_in_a_thread_is_not_the_unit_tests_fault() -> None:
    errors: list[OSError] = []

    def connect() -> None:
        with socket.socket() as client:
            errors.append(OSError(client.connect_ex(("127.0.0.1", 1))))

    thread = Thread(target=connect)
    thread.start()
    thread.join()
    assert errors


@pytest.mark.integration
def test_an_integration_test_may_start_a_process() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


def test_a_test_is_marked_by_the_server_that_its_fixtures_ask_for(request: pytest.FixtureRequest) -> None:
    items = request.session.items
    assert all(
        item.get_closest_marker("integration") for item in items if "redis_url" in getattr(item, "fixturenames", ())
    )
    assert request.node.get_closest_marker("integration") is None


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_of_a_test_for_both_databases_the_half_on_postgresql_is_marked(
    request: pytest.FixtureRequest, kind: str
) -> None:
    assert (request.node.get_closest_marker("integration") is not None) == (kind == "postgresql")
