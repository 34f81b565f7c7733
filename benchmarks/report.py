"""The report of a run, and the document made of the latest runs: pure functions of the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .results import Results
from .targets import CANVAS, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from .measuring import Spread

__all__ = ["page", "render"]

_FLOWS: Final = ("chain", "long", "lone", "fanout", "fanout4", "fanout16")
_GROUPS: Final = ("producer", "MAIN", "children", "engine", "Redis", "PostgreSQL")
_LATENCIES: Final = tuple(f"{what}_{load}" for what in ("events", "start", "claim") for load in ("alone", "loaded"))
_VERBS: Final = {
    "enqueue_s": "enqueue it",
    "cancel_pending_s": "cancel it while every step waits for a worker",
    "pause_running_s": "pause it while every step runs",
    "cancel_paused_s": "cancel it then",
}
_AGES: Final = {
    "transition_ms": "`transition_to`",
    "claim_ms": "claim",
    "complete_ms": "complete",
    "read_ms": "read an entity's history",
}

_INTRODUCTION: Final = """\
# Performance

Written by `make bench` and `make bench-peers`; not by hand. What is compared was measured in one run, in turns, on servers
of its own: PostgreSQL with `fsync` and `synchronous_commit` on, Redis as the broker. A machine's speed drifts, so only
the ratios within one run mean something: a ratio is taken round by round, and its median is shown. Figures are medians
over the rounds, the least and the greatest in brackets.

Bodies do nothing. All Celery workers have the same settings: prefork, as many children, prefetch multiplier 1, no
task events, log level warning. Interlock writes history and publishes events for every transition, and each of
its histories is replayed (`interlock verify`) before the figure counts; Celery keeps results in Redis and no history.
With run-through its chains ask for `run_through`, and are the same otherwise.
Time counts from the first enqueue to the last completion.
"""

_HEADINGS: Final = {"full": "Beside Celery", "quick": "Beside Celery, quickly", "peers": "Beside other systems"}

_PEERS: Final = """\
DBOS has no broker, runs a chain in one process and distributes a fan-out as workflows of their own; its queues are polled
ten times a second here, once is its default. celery-director brings its own, older Celery; the last task of each of
its workflows sleeps half a second, which is in its figures. procrastinate has neither chains nor joins: a job
defers the next one, and its fan-out is over when all jobs are."""


def page(folder: Path) -> str:
    """The document, of those runs whose figures are there."""
    runs = [Results.load(path) for kind in ("full", "peers") if (path := folder / f"{kind}.json").exists()]
    return "\n".join([_INTRODUCTION, *map(render, runs)])


def render(results: Results) -> str:
    """The report of one run, as Markdown."""
    blocks = [[f"## {_HEADINGS[results.kind]}"]]
    if results.kind == "peers":
        blocks.append([_PEERS])
    sections = (
        _targets,
        _speed,
        _ratios,
        _cpu_ratios,
        _cpu,
        _enqueueing,
        _latency,
        _cascades,
        _recovery,
        _aging,
        _memory,
        _machine,
    )
    blocks += [block for section in sections if (block := section(results))]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _targets(results: Results) -> list[str]:
    rows = [[one.title, one.aim, _digits(one.figure), "pass" if one.passed else "**fail**"] for one in judge(results)]
    return _section("Targets", ["", "aim", "here", ""], rows)


def _speed(results: Results) -> list[str]:
    return _flow_table(
        "Steps per second",
        results,
        lambda workload, subject: results.spread(workload, subject, "steps_per_s"),
    )


def _ratios(results: Results) -> list[str]:
    return _flow_table(
        "The same over Celery's canvas, round by round",
        results,
        lambda workload, subject: results.ratio(workload, subject, CANVAS, "steps_per_s"),
    )


def _cpu_ratios(results: Results) -> list[str]:
    return _flow_table(
        "CPU of all processes per step over Celery's canvas, round by round",
        results,
        lambda workload, subject: results.ratio(workload, subject, CANVAS, "cpu_ms_per_step"),
    )


def _flow_table(title: str, results: Results, cell: Callable[[str, str], Spread | None]) -> list[str]:
    workloads = [workload for workload in _FLOWS if results.subjects(workload)]
    subjects = list(dict.fromkeys(subject for workload in workloads for subject in results.subjects(workload)))
    rows = [
        [results.titles[workload], *(_number(cell(workload, subject)) for subject in subjects)]
        for workload in workloads
    ]
    return _section(title, ["", *subjects], rows)


def _cpu(results: Results) -> list[str]:
    note = (
        "Of each kind of process; the producer's column includes waiting for the end, "
        "`children` is every process of a peer's workers."
    )
    return _section("CPU milliseconds per step", ["", *_GROUPS, "sum"], list(_cpu_rows(results)), note)


def _cpu_rows(results: Results) -> Iterator[list[str]]:
    for workload in (*_FLOWS, "enqueue"):
        for subject in results.subjects(workload):
            cpu_s = results.cpu_s(workload, subject)
            steps = results.values(workload, subject, "steps")[0]
            parts = [f"{cpu_s[group] / steps * 1000:.2f}" if group in cpu_s else "" for group in _GROUPS]
            yield [f"{results.titles[workload]}: {subject}", *parts, f"{sum(cpu_s.values()) / steps * 1000:.2f}"]


def _enqueueing(results: Results) -> list[str]:
    subjects = results.subjects("enqueue")
    figures = {"workflows_per_s": "workflows per second", "steps_per_s": "steps per second"}
    rows = [
        [f"{results.titles[workload]}: {title}", *_cells(results, workload, subjects, figure)]
        for workload in ("enqueue", "enqueue_small")
        if results.subjects(workload)
        for figure, title in figures.items()
    ]
    return _section("Enqueueing, with no worker", ["", *subjects], rows)


def _latency(results: Results) -> list[str]:
    subjects = results.subjects("events_loaded")
    percentiles = (50, 95, 99)
    rows = [
        [
            results.titles[workload],
            *(
                _number(results.spread(workload, subject, f"p{percent}_ms"))
                for subject in subjects
                for percent in percentiles
            ),
        ]
        for workload in _LATENCIES
        if results.subjects(workload)
    ]
    heads = ["", *(f"{subject}: {percent} %" for subject in subjects for percent in percentiles)]
    note = (
        "Counted from the statement that wrote the history row, so the rest of that transaction and its commit are in it. "
        "The subscriber is a process of its own."
    )
    return _section("Latency in milliseconds", heads, rows, note)


def _cascades(results: Results) -> list[str]:
    subjects = results.subjects("cascade")
    rows = [[title, *_cells(results, "cascade", subjects, figure)] for figure, title in _VERBS.items() if subjects]
    return _section(f"{results.titles.get('cascade', '')}, seconds", ["", *subjects], rows)


def _recovery(results: Results) -> list[str]:
    rows = [
        [subject, *(_number(results.spread("recovery", subject, figure)) for figure in ("seconds", "steps_per_s"))]
        for subject in results.subjects("recovery")
    ]
    note = "The sweeper's work without its rate limit (`interlock_redispatch_rate`)."
    return _section(results.titles.get("recovery", ""), ["", "seconds", "steps per second"], rows, note)


def _aging(results: Results) -> list[str]:
    rows = [
        [subject, *(_number(results.spread("aging", subject, figure)) for figure in _AGES)]
        for subject in results.subjects("aging")
    ]
    note = "Milliseconds, warm; the databases take turns every few transactions, and a round's figure is their median."
    return _section(results.titles.get("aging", ""), ["", *_AGES.values()], rows, note)


def _memory(results: Results) -> list[str]:
    kinds = ("MAIN", "child", "engine")
    rows = [
        [subject, *(_number(results.spread("memory", subject, kind)) for kind in kinds)]
        for subject in results.subjects("memory")
    ]
    return _section("Peak memory of one process, MiB", ["", *kinds], rows, "Resident, shared pages included.")


def _machine(results: Results) -> list[str]:
    rows = [[name, value] for name, value in results.machine.items()]
    rows.append(["rounds", str(results.rounds)])
    flush = results.spread("flush", "the disk", "ms")
    if flush is not None:
        rows.append(["flush of one page to the disk, before each measurement", f"{_number(flush)} ms"])
    return _section("Measured on", ["", ""], rows)


def _section(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> list[str]:
    """A heading, a sentence and a table; nothing where there are no rows."""
    if not rows:
        return []
    return [f"### {title}", "", *([note, ""] if note else []), *_table(heads, rows)]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table, the first column to the left and the others to the right."""
    return [
        "| " + " | ".join(heads) + " |",
        "|---" + "|--:" * (len(heads) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _cells(results: Results, workload: str, subjects: Iterable[str], figure: str) -> list[str]:
    return [_number(results.spread(workload, subject, figure)) for subject in subjects]


def _number(spread: Spread | None) -> str:
    """Median, and in brackets the range."""
    if spread is None:
        return ""
    median = _digits(spread.median)
    if spread.least == spread.greatest:
        return median
    return f"{median} ({_digits(spread.least)} to {_digits(spread.greatest)})"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # noqa: PLR2004 - three digits
