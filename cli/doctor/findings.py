"""The findings of checks: that all is well, that something may lose work, or that it cannot tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["DoesNotApply", "Finding", "Found", "NotKnown", "Severity"]


class Severity(StrEnum):
    """How bad it is. An error loses work or keeps it from being done; a warning does so in some circumstances."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Found:
    """What a check yields where something is wrong.

    Attributes:
        what: What is so, and where.
        severity: Other than the check's own.
        remedy: Other than the check's own.
    """

    what: str
    severity: Severity | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer of a check.

    Attributes:
        code: The check's name, for programs.
        severity: How bad it is.
        what: What is so.
        why: Why that loses work; empty where all is well or not known.
        remedy: What to do; likewise.
    """

    code: str
    severity: Severity
    what: str
    why: str = ""
    remedy: str = ""


class NotKnown(Exception):
    """A check cannot tell, because of the part that did not answer; the text says which."""


class DoesNotApply(Exception):
    """There is nothing for a check to look at: it asks about something that this deployment does not have."""
