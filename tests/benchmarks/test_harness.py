"""The harness from end to end, tiny: every measurement on real servers and workers, and the document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.__main__ import main
from benchmarks.targets import CANVAS, OURS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.integration, pytest.mark.timeout(900)]

SQLITE = "Interlock, SQLite"


def _run(folder: Path, *arguments: str) -> dict[str, Any]:
    page = str(folder / "performance.md")
    assert main([*arguments, "--scale", "0.02", "--rounds", "1", "--results", str(folder), "--page", page]) == 0
    return dict(json.loads((folder / f"{arguments[0]}.json").read_text(encoding="utf-8")))


def _measured(results: dict[str, Any]) -> dict[str, set[str]]:
    by_workload: dict[str, set[str]] = {}
    for sample in results["samples"]:
        by_workload.setdefault(sample["workload"], set()).add(sample["subject"])
    return by_workload


def test_a_quick_run_measures_ours_and_celerys_with_cpu_by_process(tmp_path: Path) -> None:
    results = _run(tmp_path, "quick")
    measured = _measured(results)
    assert {OURS, CANVAS} < measured["chain"] & measured["lone"] & measured["fanout"] & measured["memory"]
    (ours,) = [s for s in results["samples"] if (s["workload"], s["subject"]) == ("chain", OURS)]
    assert set(ours["cpu_s"]) == {"producer", "MAIN", "children", "engine", "Redis", "PostgreSQL"}
    assert ours["figures"]["steps_per_s"] > 0


def test_a_full_run_measures_everything_and_writes_the_document(tmp_path: Path) -> None:
    only = "long,fanout4,enqueue,latency,cascade,recovery,aging"
    measured = _measured(_run(tmp_path, "full", "--only", only))
    both = {OURS, SQLITE}
    assert {OURS, SQLITE, CANVAS} < measured["long"] & measured["fanout4"]
    assert {OURS, SQLITE, CANVAS} == measured["enqueue"] == measured["enqueue_small"]
    assert all(
        both == measured[workload]
        for workload in ("events_alone", "events_loaded", "start_loaded", "claim_loaded", "cascade", "recovery")
    )
    assert {"200 rows", "20,000 rows", "100,000 rows"} == measured["aging"]
    document = (tmp_path / "performance.md").read_text(encoding="utf-8")
    for row in (
        "| a transition at the longest history over one at the shortest | ≤ 1.5 |",
        "| milliseconds from a history row to a subscriber, under load: median | < 20 |",
        "| pause it while every step runs |",
        f"| 5 workflows, each a chain of 20: {OURS} |",
        "| 20,000 rows |",
    ):
        assert row.replace("5 workflows", "2 workflows") in document
