"""MAIN's end of the pipe to the engine, and what MAIN says when it is about to wait."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from interlock.worker.main import engine_link
from interlock.worker.main.engine_link import EngineLink
from interlock.worker.main.supervisor import Supervisor
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

# An engine that answers each message with how many bodies it names.
_ECHO = """
import json, sys
from interlock.worker.engine_pipe import read_lines
for message in read_lines(sys.stdin.buffer):
    print(json.dumps({"named": len(message["held"])}), flush=True)
"""


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineLink]:
    """A link to an engine that only counts."""

    def popen(arguments: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return _popen([arguments[0], "-c", _ECHO], **options)

    _popen = subprocess.Popen
    monkeypatch.setattr(engine_link.subprocess, "Popen", popen)
    link = EngineLink("module:app", "worker@1")
    monkeypatch.undo()
    yield link
    link.close(5)


@pytest.mark.integration
@pytest.mark.parametrize("bodies", [1, 5_000])
def test_a_heartbeat_arrives_however_many_bodies_it_names(link: EngineLink, bodies: int) -> None:
    """A pool of green threads holds thousands; 1,600 ids are longer than a pipe, and an unnamed body loses its claim."""
    ids = [f"00000000-0000-4000-8000-{number:012}.1" for number in range(bodies)]
    link.send({"held": ids})
    link.send({"held": []})
    answers: list[int] = []

    def both_answered() -> bool:
        link.flush()
        answers.extend(message["named"] for message in link.receive())
        return len(answers) == 2

    wait_until(both_answered, 30, "both messages are answered")
    assert answers == [bodies, 0]


@pytest.mark.integration
def test_an_engine_that_does_not_read_costs_a_bounded_memory(link: EngineLink) -> None:
    """What is not read is not added to for ever: the next heartbeat says it again."""
    ids = [f"00000000-0000-4000-8000-{number:012}.1" for number in range(5_000)]
    for _ in range(50):
        link.send({"held": ids})
    assert len(link._unsent) <= 1_000_000


class _Link:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def close(self, timeout_s: float) -> None:
        assert timeout_s > 0


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """A supervisor without a worker around it, whose link is a `_Link`."""
    app = Celery("worker", set_as_current=False)
    pool = SimpleNamespace(__module__="celery.concurrency.prefork")
    supervisor = Supervisor(SimpleNamespace(app=app, pool_cls=pool, time_limit=None, soft_time_limit=None))
    supervisor._link = _Link()  # type: ignore[assignment]
    yield supervisor
    supervisor.close()
    app.close()


def test_a_heartbeat_after_a_shutdown_began_does_not_end_the_engines_care(supervisor: Supervisor) -> None:
    """It may be the last one before MAIN waits for its bodies, so it too leaves the claims to the engine."""
    link: Any = supervisor._link
    supervisor._beat()
    supervisor.stop()
    supervisor._beat()
    assert [message["last"] for message in link.sent] == [False, True, True]
