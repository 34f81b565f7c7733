"""Errors as JSON, so that a client raises the same error as the engine that carried its command out."""

from __future__ import annotations

from typing import Any, Final

from interlock.core import errors
from interlock.core.errors import InterlockError

__all__ = ["error_document", "error_from"]

_MOST_FAULTS: Final = 1_000
_LONGEST_TEXT: Final = 100_000


def error_document(error: InterlockError) -> dict[str, Any]:
    """An error as a reply carries it; `error_from` makes the same error of it again.

    What is very long is cut: an answer is stored with its command, and a plan may have more faults than bytes.
    """
    fields = {
        name: list(value[:_MOST_FAULTS]) if isinstance(value, list | tuple) else value
        for name, value in vars(error).items()
        if isinstance(value, str | int | float | bool | list | tuple | None)
    }
    text = str(error)
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]}\n  … and more"
    return {"type": type(error).__name__, "message": text, "fields": fields}


def error_from(document: dict[str, Any]) -> InterlockError:
    """The error that a reply carries, with its typed attributes."""
    cls = getattr(errors, str(document.get("type")), InterlockError)
    if not (isinstance(cls, type) and issubclass(cls, InterlockError)):
        cls = InterlockError
    error = cls.__new__(cls, str(document.get("message", "")))
    fields = document.get("fields")
    for name, value in fields.items() if isinstance(fields, dict) else ():
        error.__dict__[name] = tuple(value) if isinstance(value, list) else value
    error.args = (str(document.get("message", "")),)
    return error
