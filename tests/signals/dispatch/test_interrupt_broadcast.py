"""Interrupts on their way to workers: written for a broadcast or a pipe, and read again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from interlock.core.events import Effects, Interrupt
from interlock.signals.dispatch.interrupt_broadcast import (
    INTERRUPT_COMMAND,
    InterruptBroadcaster,
    read_interrupts,
    write_interrupts,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

OWN = Interrupt("a.1", "a.1")
CARRIED = Interrupt("b.1", "a.1")
KILLED = Interrupt("c.2", "c.2", "terminate")


class Control:
    """Stands for `app.control`."""

    def __init__(self, fails: Callable[[], None] = lambda: None) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.control = self
        self._fails = fails

    def broadcast(self, command: str, arguments: dict[str, Any]) -> None:
        self._fails()
        self.sent.append((command, arguments))


def test_what_is_written_is_read_again() -> None:
    documents = json.loads(json.dumps(write_interrupts([OWN, CARRIED, KILLED])))
    assert [each for document in documents for each in read_interrupts(document)] == [OWN, CARRIED, KILLED]


def test_only_an_attempt_on_the_message_of_another_names_that() -> None:
    assert write_interrupts([OWN, KILLED]) == [
        {"task_ids": ["a.1"], "mode": "soft"},
        {"task_ids": ["c.2"], "mode": "terminate"},
    ]
    assert write_interrupts([CARRIED]) == [{"task_ids": ["b.1"], "mode": "soft", "carriers": {"b.1": "a.1"}}]


def test_thousands_are_told_in_several_messages() -> None:
    app: Any = Control()
    InterruptBroadcaster(app)(Effects(interrupts=[Interrupt(f"{n}.1", f"{n}.1") for n in range(1_100)]))
    assert [(command, len(arguments["task_ids"])) for command, arguments in app.sent] == [
        (INTERRUPT_COMMAND, 500),
        (INTERRUPT_COMMAND, 500),
        (INTERRUPT_COMMAND, 100),
    ]


def test_a_broker_that_is_away_costs_a_warning_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise OperationalError

    app: Any = Control(fails)
    InterruptBroadcaster(app)(Effects(interrupts=[OWN]))
    assert "the heartbeat will tell" in caplog.text
