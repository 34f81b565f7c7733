"""Reads YAML of unknown origin as plain values, each with its place; limited in depth and size, and tags construct nothing.

Composing nodes recurses, in C where libyaml is there, so the depth is looked at before, event by event. A small file can stand for
billions of values by anchors: `expanded_size` counts them without expanding them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml

from .json_values import MAX_DEPTH, Json, JsonPath, Problem, dotted_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["DEEPEST", "MOST_VALUES", "Document", "FastLoader", "NotYaml", "compose", "expanded_size", "read_document"]

DEEPEST: Final = MAX_DEPTH + 8
"""How deep nodes may be nested: arguments as JSON may, and they are some levels down."""

MOST_VALUES: Final = 1_000_000
"""How many values a document may have, each anchor counted as often as it is used."""

Position: TypeAlias = tuple[int, int]
"""Line and column, from 1."""

FastLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast; PyYAML can be built without it

_SHOWN: Final = 60
_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"


class TooDeep(yaml.YAMLError):
    """It is nested more than `DEEPEST` deep.

    Attributes:
        position: Where it begins to be.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        super().__init__(f"nested more than {DEEPEST} deep")


class NotYaml(ValueError):
    """A text that cannot be read as YAML, with its file, line and column."""


@dataclass(frozen=True, slots=True)
class Document:
    """A document's values, and where they were written.

    Attributes:
        file: Name of the file.
        value: Plain lists, dicts and scalars; None in place of what is at fault.
        values: Place of each value.
        names: Place of the name of each field.
        faults: What cannot be read, with its place.
    """

    file: str
    value: Json
    values: Mapping[JsonPath, Position]
    names: Mapping[JsonPath, Position]
    faults: tuple[tuple[Position, Problem], ...]

    def place(self, path: JsonPath, *, of_value: bool = False) -> Position:
        """Where a field's name (or its value) was written; of a path that is not there, the nearest that holds it."""
        places = self.values if of_value else {**self.values, **self.names}
        while path and path not in places:
            path = path[:-1]
        return places.get(path, (1, 1))

    def lines(self, found: Iterable[tuple[Position, Problem]], root: str) -> tuple[str, ...]:
        """Its own faults and those that were `found`, as `file:line:column: field: what`, in the order of the file.

        Args:
            found: Problems with the document's values.
            root: What the document as a whole is called.
        """
        placed = sorted([*self.faults, *found], key=itemgetter(0))
        return tuple(
            dict.fromkeys(
                f"{self.file}:{line}:{column}: {dotted_path(path) or root}: {message}"
                for (line, column), (path, message) in placed
            )
        )


def read_document(file: str, data: str | bytes, loader: Any = FastLoader) -> Document:
    """Read the only document of a file.

    Args:
        file: Its name, for faults.
        data: Its content.
        loader: Says which plain scalars are no text.

    Raises:
        NotYaml: It is no YAML, or nested more than `DEEPEST` deep.
    """
    try:
        root = compose(data, loader)
    except TooDeep as error:
        line, column = error.position
        raise NotYaml(f"{file}:{line}:{column}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        said = [part for part in (getattr(error, "problem", None), getattr(error, "context", None)) if part]
        text = ", ".join(said) or " ".join(str(error).split())
        raise NotYaml(f"{file}:{line}:{column}: not YAML: {text}") from error
    reader = _NodeReader()
    value = reader.document(root)
    return Document(file, value, reader.values, reader.names, tuple(reader.faults))


def compose(data: str | bytes, loader: Any = FastLoader) -> yaml.Node | None:
    """The nodes of a document; None where it is empty.

    Raises:
        TooDeep: It is nested more than `DEEPEST` deep.
        yaml.YAMLError: It is not YAML.
    """
    depth = 0
    try:
        for event in yaml.parse(data, Loader=loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > DEEPEST:
                raise TooDeep(position_of(event))
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in str(error.problem) and error.problem_mark is not None:
            # libyaml looks ahead, and may meet a limit of its own before we see ours.
            raise TooDeep((error.problem_mark.line + 1, error.problem_mark.column + 1)) from error
        raise
    node: yaml.Node | None = yaml.compose(data, Loader=loader)
    return node


def expanded_size(node: yaml.Node | None) -> int:
    """How many values the nodes stand for, each anchor counted wherever it is used.

    Raises:
        TooDeep: Anchors nest more than `DEEPEST` deep; one that holds itself does.
    """
    return _size(node, {}, 0)


def _size(node: yaml.Node | None, known: dict[int, int], depth: int) -> int:
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if depth > DEEPEST:
        raise TooDeep(position_of(node))
    if id(node) not in known:
        known[id(node)] = 1 + sum(_size(part, known, depth + 1) for part in _parts(node))
    return known[id(node)]


def _parts(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return (part for pair in node.value for part in pair)
    parts: Iterable[yaml.Node] = node.value
    return parts


def position_of(node: yaml.Node | yaml.Event) -> Position:
    """Where a node or event begins."""
    mark: Any = node.start_mark  # PyYAML's stubs allow None, its parsers never leave it out
    return mark.line + 1, mark.column + 1


@dataclass(slots=True)
class _NodeReader:
    """Turns a node tree into values; the attributes are those of `Document`."""

    values: dict[JsonPath, Position] = field(default_factory=dict)
    names: dict[JsonPath, Position] = field(default_factory=dict)
    faults: list[tuple[Position, Problem]] = field(default_factory=list)
    _nodes: int = 0
    _depth: int = 0

    def document(self, root: yaml.Node | None) -> Json:
        """The value of a document; None in place of what is at fault."""
        try:
            size = expanded_size(root)
        except TooDeep as deep:
            self.faults.append((deep.position, ((), str(deep))))
            return None
        return self._too_many(root) if root is not None and size > MOST_VALUES else self._read(root, ())

    def _read(self, node: yaml.Node | None, path: JsonPath) -> Json:
        if node is None:
            return None
        self._nodes += 1
        if self._nodes > MOST_VALUES:  # what is merged is read for each place that it is merged into
            return self._too_many(node)
        self.values.setdefault(path, position_of(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if self._depth > DEEPEST:
            return self._too_deep(node, path)
        self._depth += 1  # not the path's length: what is merged stays at its path
        value = self._collection(node, path)
        self._depth -= 1
        return value

    def _collection(self, node: yaml.Node, path: JsonPath) -> Json:
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self._read(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._refuse(node, path, f"the tag {_short(node.tag)} is not supported")

    def _mapping(self, node: yaml.MappingNode, path: JsonPath) -> dict[str, Json]:
        merged: dict[str, Json] = {}
        own: dict[str, Json] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = {**self._merged(value_node, path), **merged}
            elif (key := self._key(key_node, path)) is not None:
                if key in own:
                    self._refuse(key_node, (*path, key), "is there twice")
                self.names[*path, key] = position_of(key_node)
                own[key] = self._read(value_node, (*path, key))
        return {**merged, **own}

    def _key(self, node: yaml.Node, path: JsonPath) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}str":
            return str(node.value)
        what = f'"{node.value}": quote it' if isinstance(node, yaml.ScalarNode) else "a collection"
        self._refuse(node, path, f"the name of a field must be a string, not {what}")
        return None

    def _merged(self, node: yaml.Node, path: JsonPath) -> dict[str, Json]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Json] = {}
        for part in nodes:
            value = self._read(part, path)
            if isinstance(value, dict):
                found = {**value, **found}
            else:
                self._refuse(part, path, "<< takes a mapping, or a list of mappings")
        return found

    def _scalar(self, node: yaml.ScalarNode, path: JsonPath) -> Json:
        convert = _SCALARS.get(node.tag)
        if convert is None:
            return self._refuse(node, path, f"the tag {_short(node.tag)} is not supported")
        try:
            return convert(node.value)
        except (KeyError, ValueError):
            shown = node.value if len(node.value) <= _SHOWN else f"{node.value[:_SHOWN]}…"
            return self._refuse(node, path, f"{shown!r} is not a {_short(node.tag)}")

    def _refuse(self, node: yaml.Node, path: JsonPath, message: str) -> None:
        self.faults.append((position_of(node), (path, message)))

    def _too_deep(self, node: yaml.Node, path: JsonPath) -> None:
        # an anchor that holds itself is met again and again: once is said enough
        message = f"nested more than {DEEPEST} deep"
        if all(known != message for _, (_, known) in self.faults):
            self._refuse(node, path[:3], message)

    def _too_many(self, node: yaml.Node) -> None:
        message = f"over {MOST_VALUES:,} values, anchors expanded"
        if all(known != message for _, (_, known) in self.faults):
            self._refuse(node, (), message)


def _integer(text: str) -> int:
    unsigned = text.lstrip("+-")
    return int(text, 0) if unsigned[:2] in ("0x", "0o") else int(text)


def _float(text: str) -> float:
    return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf"))


_BOOLEANS: Final = {"true": True, "false": False}

_SCALARS: Final[Mapping[str, Callable[[str], Any]]] = {
    f"{_TAG}null": lambda _: None,
    f"{_TAG}bool": lambda text: _BOOLEANS[text.lower()],
    f"{_TAG}int": _integer,
    f"{_TAG}float": lambda text: float("nan") if "nan" in text.lower() else _float(text),
    f"{_TAG}str": str,
}


def _short(tag: str) -> str:
    return tag.removeprefix(_TAG)
