"""The tables of docs/reliability.md, made of the results of real runs that docs/reliability_results.jsonl keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .reliability_results import PATH, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["FAULTS", "chaos", "connections", "faults", "memory"]

FAULTS: Final[Mapping[str, str]] = {
    "F1": "a pool process dies before its claim commits",
    "F2": "a pool process dies after its claim, before the body",
    "F3": "a pool process dies after the effect, before the result commits",
    "F4": "a pool process dies after the result, before the message is acknowledged",
    "F5": "a process dies after the commit, before what became due is sent",
    "F6": "a whole worker dies, or stands still",
    "F7": "a worker is shut down: warm, soft, cold",
    "F9": "a message comes twice at once",
    "F10": "the broker loses all messages",
    "F11": "reports arrive in the wrong order",
    "F12": "a control command is lost, doubled, overtaken",
    "F13": "a commit is applied and its answer lost",
    "F14": "the database gives a transaction up",
    "F15": "PostgreSQL crashes or restarts",
    "F17": "SQLite is busy, the disk is full",
    "F18": "Redis of the events is away",
    "F19": "Redis restarts, or throws a slow subscriber off",
    "F20": "a process dies after the commit, before its events are published",
    "F21": "two operators race",
    "F22": "an approval is decided late, twice, by two people",
    "F23": "a process dies in the middle of a cancel of 1,000 steps",
    "F26": "poison: bodies, results and commands that can never work",
    "F27": "a receiver raises, or finds no connection to the database",
    "F29": "many sweepers, killed, with what they read outdated",
    "F30": "two versions at once, a migration under load",
    "F32": "10,000 steps are due at once",
    "F34": "a listener raises",
    "F35": "the soft signal comes at the wrong moment",
    "F36": "a revoke is lost",
    "F37": "an engine dies and is started again, a hundred times",
}
"""What each number means; docs, tests and results use the same numbers."""


def faults() -> str:
    """A row for each way in which a fault was injected."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in read(PATH):
        if "fault" in result:
            rows.setdefault((result["fault"], result["injected"]), []).append(result)
    ordered = sorted(rows.items(), key=lambda item: (int(item[0][0][1:]), item[0][1]))
    cells = [_fault_row(*key, results) for key, results in ordered]
    runs = sum(result["runs"] for results in rows.values() for result in results)
    lost = sum(result["lost"] for results in rows.values() for result in results)
    cells.append(("", "in all", "", f"{runs:,}", f"{lost:,}", ""))
    days = sorted({result["on"] for results in rows.values() for result in results if "on" in result})
    when = f"Of {' and '.join(dict.fromkeys((days[0], days[-1])))}.\n\n" if days else ""
    return when + _table(("#", "fault", "injected as", "runs", "lost", "recovered within"), cells)


def _fault_row(fault: str, injected: str, results: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    times = [result["recovery_s"] for result in results if result["recovery_s"] is not None]
    runs, lost = (sum(result[name] for result in results) for name in ("runs", "lost"))
    return fault, FAULTS[fault], injected, f"{runs:,}", f"{lost:,}", f"{max(times):.1f} s" if times else "-"


def chaos() -> str:
    """A row for each run, and one for each kind of fault of the longest one."""
    results = sorted(_of("chaos"), key=lambda result: -sum(result["faults"].values()))
    runs = _table(
        (
            "command",
            "on",
            "faults",
            "workflows",
            "steps completed",
            "bodies run again",
            "changes received",
            "violations",
        ),
        [_chaos_row(result) for result in results],
    )
    if not results:
        return runs
    longest = results[0]
    kinds = [
        (kind, f"{count:,}", *(_seconds(longest[name].get(kind)) for name in ("typical_s", "recovery_s")))
        for kind, count in longest["faults"].items()
    ]
    header = ("fault", "times", "recovery, median", "recovery, longest")
    return f"{runs}\nThe faults of `{longest['command']}`:\n\n{_table(header, sorted(kinds))}"


def _chaos_row(result: Mapping[str, Any]) -> tuple[str, ...]:
    ends = ", ".join(f"{count:,} {status}" for status, count in sorted(result["statuses"].items()))
    again = f"{result['again'] - result['refused']:,} of {result['bodies']:,}"
    return (
        f"`{result['command']}`",
        _day(result),
        f"{sum(result['faults'].values()):,}",
        ends,
        f"{result['steps']:,}",
        again,
        f"{result['changes']:,}",
        str(len(result["violations"])),
    )


def memory() -> str:
    """A row for each process of each run."""
    cells = [
        (
            f"`{result['command']}`",
            _day(result),
            f"{result['steps']:,} in {result['seconds']:,} s",
            name,
            *_growth(growth),
        )
        for result in _of("memory")
        for name, growth in result["growth"].items()
    ]
    header = ("command", "on", "steps", "process", "after warm-up", "least", "most", "furthest off", "per 1,000 steps")
    return _table(header, cells)


def _growth(growth: Mapping[str, float]) -> tuple[str, ...]:
    sizes = (f"{growth[name]:.1f} MB" for name in ("first_mb", "least_mb", "most_mb"))
    return *sizes, f"{growth['spread']:.1%}", f"{growth['slope_kb']:+.0f} kB"


def connections() -> str:
    """A row for each thing that was counted in each run."""
    cells = [
        (f"`{result['command']}`", _day(result), name, str(result["before"][name]), str(after))
        for result in _of("connections")
        for name, after in result["after"].items()
    ]
    return _table(("command", "on", "open", "before", "after"), cells)


def _of(kind: str) -> list[dict[str, Any]]:
    return [result for result in read(PATH) if result.get("kind") == kind]


def _day(result: Mapping[str, Any]) -> str:
    day: str = result.get("on", "-")
    return day


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
