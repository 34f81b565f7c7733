"""Statistics, verdicts and the document: pure functions of the figures."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from benchmarks.machine import describe
from benchmarks.measuring import CpuMeter, Sample, Spread, own_cpu_s, percentile
from benchmarks.options import ROOT, Sizes, parse
from benchmarks.report import page, render
from benchmarks.results import Results
from benchmarks.targets import CANVAS, OURS, judge
from benchmarks.turns import turns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def _flow(workload: str, subject: str, number: int, steps_per_s: float) -> Sample:
    figures = {
        "seconds": 100 / steps_per_s,
        "steps_per_s": steps_per_s,
        "ms_per_step": 1000 / steps_per_s,
        "cpu_ms_per_step": 5.0,
        "steps": 100,
    }
    return Sample(workload, subject, number, figures, {"MAIN": 0.2, "children": 0.3})


def _results(ours: Sequence[float], canvas: Sequence[float], workload: str = "chain") -> Results:
    samples = [_flow(workload, OURS, number, speed) for number, speed in enumerate(ours, 1)]
    samples += [_flow(workload, CANVAS, number, speed) for number, speed in enumerate(canvas, 1)]
    return Results("full", len(ours), {"cores": "2"}, {workload: "some chains"}, samples)


def test_a_ratio_is_taken_round_by_round() -> None:
    """The machine was twice as fast in the second round; over the medians the ratio would be 1.5."""
    results = _results(ours=[200, 100, 300], canvas=[100, 200, 100])
    assert results.ratio("chain", OURS, CANVAS, "steps_per_s") == Spread(median=2.0, least=0.5, greatest=3.0)


def test_there_is_no_ratio_to_a_figure_of_zero() -> None:
    """A system that counts CPU in hundredths says 0 of a short run."""
    results = _results(ours=[100, 100], canvas=[100, 100])
    for sample in results.samples[2:]:
        sample.figures["cpu_ms_per_step"] = 0.0
    assert results.ratio("chain", OURS, CANVAS, "cpu_ms_per_step") is None


@pytest.mark.parametrize(("ours", "passed"), [(110, True), (109, False)])
def test_a_target_is_judged_by_the_median_ratio(ours: float, passed: bool) -> None:  # noqa: FBT001 - what is expected
    results = _results(ours=[ours, ours, 10], canvas=[100, 100, 100])
    verdicts = {verdict.title: verdict.passed for verdict in judge(results)}
    assert verdicts == {"chains of 100: throughput over Celery's `chain`": passed}


def test_what_was_not_measured_is_not_passed() -> None:
    assert judge(Results("full", 3, {})) == []


def test_longer_chains_are_held_against_shorter_ones() -> None:
    results = _results(ours=[100], canvas=[100])
    results.samples += _results(ours=[90], canvas=[60], workload="long").samples
    verdicts = {verdict.title: verdict for verdict in judge(results)}
    longer = verdicts["chains of 1,000: that ratio over the one at 100"]
    assert (longer.figure, longer.passed) == (1.5, True)


def test_the_cost_of_age_compares_the_longest_history_with_the_shortest() -> None:
    ages = {"10 rows": 2.0, "100 rows": 9.0, "1,000 rows": 4.0}
    samples = [Sample("aging", age, 1, {"transition_ms": value}) for age, value in ages.items()]
    (verdict,) = judge(Results("full", 1, {}, {}, samples))
    assert (verdict.figure, verdict.passed) == (2.0, False)


def test_a_report_shows_medians_ranges_and_cpu_by_process() -> None:
    report = render(_results(ours=[150, 120, 130], canvas=[100, 100, 100]))
    assert f"|  | {OURS} | {CANVAS} |" in report
    assert "| some chains | 130 (120 to 150) | 100 |" in report
    assert "| some chains | 1.30 (1.20 to 1.50) | 1.00 |" in report
    assert f"| some chains: {OURS} |  | 2.00 | 3.00 |  |  |  | 5.00 |" in report


def test_a_report_has_no_section_without_figures() -> None:
    headings = [line for line in render(_results([1], [1])).splitlines() if line.startswith("### ")]
    assert headings == [
        "### Targets",
        "### Steps per second",
        "### The same over Celery's canvas, round by round",
        "### CPU of all processes per step over Celery's canvas, round by round",
        "### CPU milliseconds per step",
        "### Measured on",
    ]


def test_the_document_is_made_of_the_runs_that_were_saved(tmp_path: Path) -> None:
    full = _results([130], [100])
    full.save(tmp_path)
    assert Results.load(tmp_path / "full.json") == full
    assert "## Beside other systems" not in page(tmp_path)
    Results("peers", 1, {}, full.titles, full.samples).save(tmp_path)
    assert page(tmp_path).index("## Beside Celery") < page(tmp_path).index("## Beside other systems")


def test_the_machine_is_described_without_its_name_or_paths() -> None:
    described = " ".join(describe().values())
    assert socket.gethostname() not in described
    assert str(ROOT) not in described
    assert "cores" in described


def test_cpu_is_counted_from_the_start_of_the_measurement() -> None:
    process = psutil.Process()
    before = own_cpu_s(process)
    meter = CpuMeter({"this": lambda: own_cpu_s(process)})
    deadline = time.process_time() + 0.1
    while time.process_time() < deadline:
        pass
    used_s = meter.used()["this"]
    assert 0.05 < used_s < 0.5
    assert own_cpu_s(process) - before >= used_s - 0.02  # the kernel counts in hundredths


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert [percentile([5, 1, 4, 2, 3], percent) for percent in (0, 50, 95, 100)] == [1, 3, 5, 5]


def test_each_round_begins_with_another_one() -> None:
    assert list(turns("abc", 4)) == [
        *((1, "a"), (1, "b"), (1, "c")),
        *((2, "b"), (2, "c"), (2, "a")),
        *((3, "c"), (3, "a"), (3, "b")),
        *((4, "a"), (4, "b"), (4, "c")),
    ]


def test_only_a_whole_run_of_full_size_and_three_rounds_writes_the_document() -> None:
    document = ROOT / "docs" / "performance.md"
    assert parse(["full"]).page == document
    assert parse(["peers"]).page == document
    for arguments in (["quick"], ["full", "--only", "chain"], ["full", "--scale", "0.5"], ["peers", "--rounds", "2"]):
        assert parse(arguments).page is None


def test_an_unknown_measurement_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["quick", "--only", "chain,walk"])
    assert "unknown: walk; a quick run has chain, lone, fanout" in capsys.readouterr().err


def test_sizes_can_be_scaled_down() -> None:
    small = Sizes().scaled(0.01)
    assert (small.chain_length, small.width, small.history) == (2, 10, (200, 10_000, 50_000))
