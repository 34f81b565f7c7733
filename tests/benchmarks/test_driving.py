"""The pipe to a peer's producer."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

from benchmarks.peers.driving import ANSWER, serve, wait_for

if TYPE_CHECKING:
    import pytest


def test_each_request_is_carried_out_and_answered(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(sys, "stdin", io.StringIO('["chains", 2, 3]\n["fan_out", 5]\n'))
    serve({"chains": lambda *arguments: asked.append(arguments), "fan_out": lambda width: asked.append((width,))})
    answers = [json.loads(line.removeprefix(ANSWER)) for line in capsys.readouterr().out.splitlines()]
    assert asked == [(2, 3), (5,)]
    assert [0 <= answer["seconds"] < 1 for answer in answers] == [True, True]


def test_a_count_is_waited_for_until_it_is_reached() -> None:
    counts = iter([0, 1, 4])
    wait_for(lambda: next(counts), 3)
    assert next(counts, None) is None
