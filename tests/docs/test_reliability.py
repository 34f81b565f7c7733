"""The tables of docs/reliability.md say what was found in real runs, and nothing else."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from docs import reliability_results, reliability_tables
from tests.servers import ROOT

if TYPE_CHECKING:
    from pathlib import Path

F5 = {"fault": "F5", "injected": "kill -9 at complete.committed", "runs": 1, "lost": 0, "recovery_s": 1.9}
CHAOS = {
    "kind": "chaos",
    "on": "2026-01-31",
    "command": "make chaos SEED=a MINUTES=1 WORKFLOWS=60",
    "faults": {"engine process killed (SIGKILL)": 3},
    "recovery_s": {"engine process killed (SIGKILL)": 0.6},
    "typical_s": {"engine process killed (SIGKILL)": 0.4},
    "statuses": {"completed": 59, "cancelled": 1},
    "steps": 1595,
    "bodies": 1610,
    "again": 12,
    "refused": 8,
    "changes": 6400,
    "violations": [],
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty file in the place of the committed one."""
    path = tmp_path / "results.jsonl"
    monkeypatch.setattr(reliability_results, "PATH", path)
    monkeypatch.setattr(reliability_tables, "PATH", path)
    return path


def _write(path: Path, *results: object) -> Path:
    path.write_text("".join(json.dumps(result) + "\n" for result in results))
    return path


def test_runs_of_one_fault_are_one_row_with_the_longest_recovery(results: Path) -> None:
    _write(results, F5, F5 | {"recovery_s": 2.44}, F5 | {"fault": "F13", "recovery_s": None, "lost": 1})
    rows = reliability_tables.faults().splitlines()[2:]
    words = reliability_tables.FAULTS
    assert rows == [
        f"| F5 | {words['F5']} | kill -9 at complete.committed | 2 | 0 | 2.4 s |",
        f"| F13 | {words['F13']} | kill -9 at complete.committed | 1 | 1 | - |",
        "|  | in all |  | 3 | 1 |  |",
    ]


def test_chaos_shows_what_was_violated_and_leaves_out_bodies_that_fail_on_purpose(results: Path) -> None:
    _write(results, CHAOS, CHAOS | {"command": "another", "violations": ["x"], "faults": {}})
    table = reliability_tables.chaos()
    assert (
        f"| `{CHAOS['command']}` | 2026-01-31 | 3 | 1 cancelled, 59 completed | 1,595 | 4 of 1,610 | 6,400 | 0 |"
        in table
    )
    assert "| `another` | 2026-01-31 | 0 | 1 cancelled, 59 completed | 1,595 | 4 of 1,610 | 6,400 | 1 |" in table
    assert "| engine process killed (SIGKILL) | 3 | 0.4 s | 0.6 s |" in table


def test_new_results_replace_those_of_the_same_command_and_a_new_suite_the_old_one(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write(results, F5, CHAOS, CHAOS | {"command": "another"})
    new = _write(tmp_path / "new.jsonl", F5 | {"fault": "F6"}, CHAOS | {"steps": 7})
    assert reliability_results.main([str(new)]) == 0
    kept = reliability_results.read(results)
    assert [each.get("fault") or (each["command"], each["steps"]) for each in kept] == [
        "F6",
        ("another", 1595),
        (CHAOS["command"], 7),
    ]
    assert reliability_results.main([str(tmp_path / "absent")]) == 1
    assert "run `make faults`" in capsys.readouterr().err


def test_every_fault_has_its_words_a_test_and_a_result() -> None:
    reported = {each["fault"] for each in reliability_results.read(reliability_results.PATH) if "fault" in each}
    assert reported == set(reliability_tables.FAULTS)
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "faults").glob("test_*.py")]
    tested = {fault for text in texts for fault in re.findall(r"\bF\d+\b", text)}
    assert reported <= tested
