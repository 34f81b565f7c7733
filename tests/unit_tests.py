"""Unit tests need nothing but their own process: the rest is marked `integration`, most of it by its fixtures.

A test without the mark that starts a process or reaches for a server is refused, and told so.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["SERVER_FIXTURES", "UnitTests", "refuse_in_unit_tests"]

SERVER_FIXTURES: Final = frozenset(
    {"redis_server", "redis_url", "broker_url", "worker_redis", "fault_redis", "postgres_server", "postgres_databases"}
)
"""Who asks for one of these, in whatever roundabout way, is an integration test."""

_REFUSED: Final = {
    "subprocess.Popen": "starts a process",
    "os.posix_spawn": "starts a process",
    "socket.connect": "connects to a server",
}

_unit_test: str | None = None


def refuse_in_unit_tests(what: str) -> None:
    """Fail the test that runs if it is a unit test and this is the thread that it runs in."""
    if _unit_test is not None and threading.current_thread() is threading.main_thread():
        pytest.fail(f"a unit test {what}: mark it with @pytest.mark.integration, or do without ({_unit_test})")


def _on_event(event: str, _: tuple[Any, ...]) -> None:
    if _unit_test is not None and event in _REFUSED:
        refuse_in_unit_tests(_REFUSED[event])


class UnitTests:
    """The plugin: marks by fixtures, and watches what has no mark."""

    def pytest_configure(self) -> None:
        """Listen to what Python is about to do; a hook cannot be taken back, and costs nothing while no unit test runs."""
        sys.addaudithook(_on_event)

    @pytest.hookimpl(tryfirst=True)  # before -m selects
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Mark what asks for a server, and the half of each test for both databases that is for PostgreSQL."""
        for item in items:
            if not SERVER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())) or _is_for_postgresql(item):
                item.add_marker(pytest.mark.integration)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Watch the fixtures."""
        return (yield from _watching(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Watch the test; not the teardown, which may end what tests before it have shared."""
        return (yield from _watching(item))


def _is_for_postgresql(item: pytest.Item) -> bool:
    return hasattr(item, "callspec") and "postgresql" in item.callspec.params.values()


def _watching(item: pytest.Item) -> Generator[None]:
    global _unit_test  # noqa: PLW0603 - an audit hook has no other place
    _unit_test = None if item.get_closest_marker("integration") else item.nodeid
    try:
        return (yield)
    finally:
        _unit_test = None
