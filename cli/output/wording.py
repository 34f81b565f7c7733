"""How states, times and durations read on a screen, and how times are typed. JSON has its own, exact forms."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["STYLES", "ago", "as_time", "duration", "elapsed_s", "error_line", "moment", "progress_words", "state_text"]

_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
_DAY_S: Final = 86_400
_PRECISE_BELOW_S: Final = 10
_MONTH_S: Final = 30 * _DAY_S


class _Look(NamedTuple):
    glyph: str
    style: str


STYLES: Final[Mapping[str, _Look]] = {
    "draft": _Look("·", "dim"),
    "planning": _Look("…", "cyan"),
    "executing": _Look("●", "blue"),
    "pending": _Look("·", "dim"),
    "running": _Look("●", "blue"),
    "paused": _Look("‖", "yellow"),
    "waiting_approval": _Look("?", "magenta"),
    "completed": _Look("✓", "green"),
    "failed": _Look("✗", "red"),
    "skipped": _Look("-", "dim"),
    "cancelled": _Look("■", "dim yellow"),
}
"""Glyph and colour of each state of workflows and steps."""


def state_text(state: str) -> Text:
    """A state as glyph and word, coloured."""
    look = STYLES.get(state, _Look("·", ""))
    return Text(f"{look.glyph} {state.replace('_', ' ')}", style=look.style)


def moment(value: object) -> datetime | None:
    """A time out of a status document (ISO 8601 text) or an event; without a zone it is UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def elapsed_s(started: object, ended: object, now: datetime) -> float | None:
    """Seconds from a start to an end, or to now; None where nothing has started. Clocks that differ never give less than 0."""
    since = moment(started)
    if since is None:
        return None
    return max(0.0, ((moment(ended) or now) - since).total_seconds())


def duration(seconds: float | None) -> str:
    """A duration in the two largest units: `0.4 s`, `42 s`, `3 min 05 s`, `2 h 10 min`, `4 d 3 h`."""
    if seconds is None:
        return ""
    if seconds < _PRECISE_BELOW_S:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S:02} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"


def ago(value: object, now: datetime) -> str:
    """How long a time is past: `just now`, `5 min ago`, `3 h ago`, `2 d ago`; after a month, the date."""
    then = moment(value)
    if then is None:
        return ""
    seconds = (now - then).total_seconds()
    if seconds >= _MONTH_S:
        return then.astimezone().strftime("%Y-%m-%d")
    for size, unit in ((_DAY_S, "d"), (_HOUR_S, "h"), (_MINUTE_S, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago" if seconds >= 2 else "just now"  # noqa: PLR2004 - shorter than it takes to read


_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)")
_UNIT_S: Final = {"s": 1, "m": _MINUTE_S, "min": _MINUTE_S, "h": _HOUR_S, "d": _DAY_S, "w": 7 * _DAY_S}


def as_time(typed: str, now: datetime) -> datetime:
    """A point in time as typed: `30m`, `2h` or `7d` (that long before now), or ISO 8601 (local where no zone is given).

    Raises:
        ValueError: Neither.
    """
    if span := _SPAN.fullmatch(typed.strip()):
        return now - timedelta(seconds=float(span[1]) * _UNIT_S[span[2]])
    return datetime.fromisoformat(typed.strip()).astimezone(UTC)


def error_line(value: Any, most: int = 200) -> str:
    """The last line of an error text (a traceback ends with what it is about), not longer than `most` characters."""
    lines = [line.strip() for line in str(value or "").splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def progress_words(progress: Mapping[str, Any] | None) -> str:
    """What a step says of its progress, such as `12/100 labels`; empty where it says nothing."""
    if not progress:
        return ""
    done, total, message = progress.get("done"), progress.get("total"), progress.get("message")
    counted = f"{done:g}/{total:g}" if total else "" if done is None else f"{done:g}"
    return " ".join(part for part in (counted, message) if part)
