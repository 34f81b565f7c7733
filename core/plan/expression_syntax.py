"""Parses JMESPath expressions without evaluating them: is one sound, and which steps does it read.

Sound means more here than for the library: an unknown function, a wrong number of arguments or a
name that no expression sees is found now, not in the middle of a run.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions

from interlock.core.errors import ExpressionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jmespath.parser import ParsedResult

__all__ = ["ALL", "NAMES", "Reading", "read"]

ALL: Final = "*"
"""Stands among step keys for "any": `results` or `states` is used whole. No key can be this."""

NAMES: Final = ("input", "results", "states", "workflow", "item", "index")
"""What an expression sees; `item` and `index` only in the arguments of a mapped step."""

# What a part of an expression stands for, as far as reading steps goes.
_ROOT: Final = "root"  # the whole context
_STEPS: Final = "steps"  # `results` or `states`
_DATA: Final = "data"  # anything below

_LEAVES: Final = frozenset({"literal", "index", "slice"})
_CHAINS: Final = frozenset({"subexpression", "index_expression", "pipe"})
_PROJECTIONS: Final = frozenset({"projection", "value_projection", "filter_projection"})
_BY_STEP: Final = frozenset({"results", "states"})


@dataclass(frozen=True, slots=True)
class Reading:
    """What an expression reads.

    Attributes:
        parsed: The expression, ready to be evaluated.
        steps: Keys of the steps whose result or state it reads, with `ALL` for "any".
        names: Which of `NAMES` it uses.
    """

    parsed: ParsedResult
    steps: frozenset[str]
    names: frozenset[str]


def read(text: str) -> Reading:
    """Parse an expression and find out what it reads.

    Raises:
        ExpressionError: It does not parse, calls an unknown function or one with the wrong number
            of arguments, or uses a name that no expression sees.
    """
    reader = _Reader(text)
    try:
        parsed = jmespath.compile(text)
        reader.use_whole(reader.visit(parsed.parsed, _ROOT))
    except JMESPathError as error:
        raise ExpressionError(text, _syntax_detail(text, error)) from error
    except RecursionError as error:
        raise ExpressionError(text, "is nested too deeply") from error
    return Reading(parsed, frozenset(reader.steps), frozenset(reader.names))


@dataclass(slots=True)
class _Reader:
    """Follows the syntax tree and notes what is read; a doubt counts as "reads any step"."""

    text: str
    steps: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    def use_whole(self, part: str) -> None:
        if part != _DATA:
            self.steps.add(ALL)

    def visit(self, node: Mapping[str, Any], part: str) -> str:
        kind, children = node["type"], node["children"]
        if kind in ("identity", "current"):
            return part
        if kind in _LEAVES:
            return _DATA
        if kind == "field":
            return self._field(node["value"], part)
        if kind in _CHAINS:
            for child in children:
                part = self.visit(child, part)
            return part
        if kind in _PROJECTIONS:
            return self._projection(children, part)
        if kind == "expref":
            raise ExpressionError(self.text, "`&` is only for arguments of functions like sort_by")
        if kind == "function_expression":
            self._check_call(node["value"], len(children))
        for child in children:
            self._operand(child, part, in_call=kind == "function_expression")
        return _DATA

    def _projection(self, children: Sequence[Mapping[str, Any]], part: str) -> str:
        self.use_whole(self.visit(children[0], part))
        for child in children[1:]:
            self.visit(child, _DATA)
        return _DATA

    def _operand(self, node: Mapping[str, Any], part: str, *, in_call: bool) -> None:
        if in_call and node["type"] == "expref":
            # it is applied to the items of another argument, and that one is noted by itself
            self.visit(node["children"][0], _DATA)
        else:
            self.use_whole(self.visit(node, part))

    def _field(self, name: str, part: str) -> str:
        if part == _STEPS:
            self.steps.add(name)
        if part != _ROOT:
            return _DATA
        if name not in NAMES:
            seen = f"an expression sees {', '.join(NAMES)}"
            raise ExpressionError(self.text, _unknown("name", name, NAMES) or seen)
        self.names.add(name)
        return _STEPS if name in _BY_STEP else _DATA

    def _check_call(self, name: str, count: int) -> None:
        table: Mapping[str, Mapping[str, Any]] = Functions.FUNCTION_TABLE
        if name not in table:
            raise ExpressionError(self.text, _unknown("function", name, table))
        signature = table[name]["signature"]
        wanted = len(signature)
        variadic = bool(signature and signature[-1].get("variadic"))
        if count < wanted or (count > wanted and not variadic):
            least = "at least " if variadic else ""
            detail = f"{name}() takes {least}{wanted} arguments, not {count}"
            raise ExpressionError(self.text, detail)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    known = tuple(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return f"unknown {what} {name} ({hint})"


def _syntax_detail(text: str, error: JMESPathError) -> str:
    if not text.strip():
        return "is empty"
    position = getattr(error, "lex_position", None)
    token = getattr(error, "token_value", None)
    where = f" at column {position + 1}" if isinstance(position, int) else ""
    near = f", near {token!r}" if token not in (None, "") else ""
    hint = ' (a step key with "-" in it is quoted: results."a-b")' if "-" in text else ""
    return f"syntax error{where}{near}{hint}"
