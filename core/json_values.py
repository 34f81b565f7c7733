"""Checks and copies documents that are to be stored as JSON, wherever they come in.

A document goes to the database (PostgreSQL's jsonb refuses NUL and lone surrogates), to the broker, and to readers in other
languages (which know no NaN).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from .errors import NotJson, PayloadTooLarge

__all__ = [
    "MAX_DEPTH",
    "Json",
    "JsonPath",
    "Problem",
    "checked_json",
    "compact_json",
    "cut_text",
    "dotted_path",
    "json_size",
    "plain_json",
    "shown_path",
    "storable_text",
]

Json: TypeAlias = Any
"""A JSON value. The exact recursive type would have to be narrowed again at each use."""

JsonPath: TypeAlias = tuple[str | int, ...]
"""Keys and indexes that lead from a document to a part of it."""

Problem: TypeAlias = tuple[JsonPath, str]
"""Where something is wrong, and what."""

MAX_DEPTH: Final = 64
"""How deep objects and lists may be nested; what reads them may recurse."""

_MAX_NODES: Final = 1_000_000  # small YAML or Python objects can expand to billions by sharing
_MAX_PROBLEMS: Final = 20
_MAX_INT_BITS: Final = 4096  # beyond some 14,000 Python itself refuses to print them


compact_json: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
"""A JSON value's compact text; ValueError where a number is none, TypeError where something is not JSON."""


def plain_json(value: object, *, max_depth: int = MAX_DEPTH) -> tuple[Json, tuple[Problem, ...]]:
    """Copy a value as plain lists and dicts (tuples become lists) and say what is not JSON in it.

    Returns:
        The copy, and the problems: at most 20, none if the copy is JSON.
    """
    copier = _Copier(max_depth)
    return copier.copy(value, ()), tuple(copier.problems)


def checked_json(field: str, value: object, limit: int | None = None, *, max_depth: int = MAX_DEPTH) -> Json:
    """Copy a document that is to be stored, as plain lists and dicts.

    Args:
        field: What it is, for the error.
        value: The document.
        limit: Bytes of its JSON text at most; None for any number.
        max_depth: How deep it may be nested.

    Raises:
        NotJson: It is not JSON.
        PayloadTooLarge: It is over the limit.
    """
    document, problems = plain_json(value, max_depth=max_depth)
    if problems:
        path, message = problems[0]
        raise NotJson(f"{field}{shown_path(path)}", message)
    if limit is not None and (size := json_size(document)) > limit:
        raise PayloadTooLarge(field, size, limit)
    return document


def dotted_path(path: JsonPath) -> str:
    """A path in the words of a document's author: `steps[3].after`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def shown_path(path: JsonPath) -> str:
    """A path in somebody's data: `['rows'][3]`. A key that is no identifier may itself be data, and is shown as `[…]`."""
    return "".join(f"[{part!r}]" if isinstance(part, int) or part.isidentifier() else "[…]" for part in path)


def json_size(value: Json) -> int:
    """Bytes of a JSON value's compact UTF-8 text."""
    return len(compact_json(value).encode())


def cut_text(text: str, limit: int, *, keeps_end: bool = False) -> str:
    """Text of at most `limit` characters, and a mark where there were more."""
    if len(text) <= limit:
        return text
    mark = f"… cut: {len(text):,} characters …"
    return f"{mark}{text[-limit:]}" if keeps_end else f"{text[:limit]}{mark}"


def storable_text(text: str) -> str:
    """Text of foreign origin as every database takes it: NUL and lone surrogates are replaced by a question mark."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()


@dataclass(slots=True)
class _Copier:
    max_depth: int = MAX_DEPTH
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0

    def copy(self, value: object, path: JsonPath) -> Json:
        self.nodes += 1
        if self.nodes > _MAX_NODES or len(self.problems) >= _MAX_PROBLEMS:
            return self._too_many(path)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, int | float):
            return self._number(value, path)
        if isinstance(value, dict | list | tuple):
            return self._container(value, path)
        return self._refuse(path, f"{type(value).__name__} is not JSON{_hint(value)}")

    def _container(self, value: dict[Any, Any] | list[Any] | tuple[Any, ...], path: JsonPath) -> Json:
        if len(path) >= self.max_depth:
            return self._refuse(path, f"nested more than {self.max_depth} deep")
        if isinstance(value, dict):
            return {(text := self._key(key, path)): self.copy(inner, (*path, text)) for key, inner in value.items()}
        return [self.copy(inner, (*path, index)) for index, inner in enumerate(value)]

    def _key(self, key: object, path: JsonPath) -> str:
        if isinstance(key, str):
            return self._text(key, path)
        # Not the key itself: it may be a result's, and what is told of those goes to subscribers, who may not see them.
        self._refuse(path, f"a key is {type(key).__name__}, not a string: quote it")
        return str(key)

    # Of a subclass (an enumeration's member) `json.dumps` writes what the base type holds, whatever its own methods say.

    def _text(self, value: str, path: JsonPath) -> str:
        if "\0" in value:
            self._refuse(path, "text with a NUL character cannot be stored")
        elif not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            self._refuse(path, "text with a lone surrogate cannot be stored")
        return str.__str__(value)

    def _number(self, value: float, path: JsonPath) -> Json:
        if isinstance(value, int):
            number = int.__int__(value)
            if number.bit_length() > _MAX_INT_BITS:
                return self._refuse(path, f"an integer of over {_MAX_INT_BITS} bits: pass a string")
            return number
        fraction = float.__float__(value)
        if not math.isfinite(fraction):
            return self._refuse(path, f"{fraction} is no JSON number")
        return fraction

    def _refuse(self, path: JsonPath, message: str) -> None:
        self.problems.append((path, message))

    def _too_many(self, path: JsonPath) -> None:
        if not self.problems:
            self._refuse(path, f"over {_MAX_NODES:,} values")


def _hint(value: object) -> str:
    name = type(value).__name__
    if name in ("date", "datetime", "time", "timedelta", "Decimal", "UUID", "PosixPath"):
        return ": write it as a string"
    if isinstance(value, set | frozenset):
        return ": use a list"
    if isinstance(value, bytes | bytearray):
        return ": encode it, such as by base64"
    return ""
