"""Describes what is wrong with a plan or a configuration file, with its place, for whoever wrote it."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticCustomError

from interlock.core.json_values import dotted_path
from interlock.core.names import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

    from interlock.core.json_values import JsonPath, Problem

__all__ = ["UNKNOWN_FIELD", "Fault", "Suggestions", "faults_of", "refuse"]

UNKNOWN_FIELD: Final = "unknown field"
"""What is said first of a field that does not exist; its place is that of its name."""

_SHOWN_CHARACTERS: Final = 60
_FEW: Final = 6  # fields that are all named where one is not known

# pydantic speaks of dictionaries and tuples; a plan's author sees YAML or JSON
_SHAPES: Final = {
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "float_type": "must be a number",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a plan.

    Attributes:
        path: Keys and indexes that lead to it, such as `("steps", 3, "after")`.
        message: What is wrong, and where possible what was meant.
    """

    path: JsonPath
    message: str

    def __str__(self) -> str:
        return f"{dotted_path(self.path) or 'plan'}: {self.message}"


def refuse(problems: Iterable[Problem]) -> None:
    """Inside a pydantic validator: report problems with the path of each, below the field.

    Raises:
        PydanticCustomError: If there is any.
    """
    found = tuple(problems)
    if found:
        raise PydanticCustomError("plan", "{count} problems", {"count": len(found), "all": found})


def faults_of(error: ValidationError, model: type[BaseModel], path: JsonPath = ()) -> tuple[Fault, ...]:
    """Describe a pydantic error for whoever wrote the document.

    Args:
        error: What validation raised.
        model: What was validated; unknown fields are compared with its fields.
        path: Where in the plan the validated value is.
    """
    return tuple(fault for detail in error.errors(include_url=False) for fault in _faults(detail, model, path))


class Suggestions:
    """Finds what a misspelt name may have meant, up to a fixed amount of work per plan.

    Comparing 10,000 wrong names with 10,000 right ones would take minutes.
    """

    def __init__(self, comparisons: int = 200_000) -> None:
        self._left = comparisons

    def did_you_mean(self, name: str, known: Sequence[str]) -> str:
        """A hint to append: ` (did you mean "x"?)`, or nothing."""
        if len(known) > self._left:
            return ""
        self._left -= len(known)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        return f' (did you mean "{close[0]}"?)' if close else ""


def _faults(detail: ErrorDetails, model: type[BaseModel], path: JsonPath) -> Iterable[Fault]:
    where = (*path, *detail["loc"])
    if detail["type"] == "plan":
        problems: tuple[Problem, ...] = detail["ctx"]["all"]
        return [Fault((*where, *below), message) for below, message in problems]
    return [Fault(where, _message(detail, model))]


def _message(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, text = detail["type"], detail["msg"]
    if kind == "string_pattern_mismatch" and detail["ctx"]["pattern"] == NAME_PATTERN:
        text = "must be 1 to 200 of A-Z a-z 0-9 _ . -"
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        name = str(detail["loc"][-1])
        fields = _fields_at(model, detail["loc"][:-1])
        known = f"; known: {', '.join(fields)}" if len(fields) <= _FEW else ""
        return f"{UNKNOWN_FIELD}{Suggestions().did_you_mean(name, fields)}{known}"
    text = _SHAPES.get(kind, text)
    if kind == "model_type" and len(fields := _fields_at(model, detail["loc"])) <= _FEW:
        text = f"{text} with {', '.join(fields)}"
    text = text.removeprefix("Value error, ").replace("Input should", "must")
    text = text[:1].lower() + text[1:]
    return text if kind == "value_error" else f"{text}, not {_shown(detail['input'])}"


def _fields_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Names of the fields of the model that a location inside `model` leads to."""
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[Any]:
    if hasattr(annotation, "model_fields"):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def _shown(value: object) -> str:
    if isinstance(value, str | int | float | None):
        text = json.dumps(value, ensure_ascii=False)
        cut = text[:_SHOWN_CHARACTERS]
        return cut if cut == text else f"{cut}…"
    return {"dict": "an object", "tuple": "a list"}.get(type(value).__name__, _article(value))


def _article(value: object) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
