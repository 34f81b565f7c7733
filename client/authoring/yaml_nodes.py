"""YAML nodes as plain values, with the place of each; knows nothing of plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from interlock.core.plan import Fault
from interlock.core.yaml_documents import DEEPEST, MOST_VALUES, TooDeep, expanded_size, position_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from interlock.core.json_values import Json, JsonPath
    from interlock.core.yaml_documents import Position

__all__ = ["NodeReader"]

_SHOWN: Final = 60
_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"


@dataclass(slots=True)
class NodeReader:
    """Turns a node tree into values.

    Attributes:
        positions: Where each value was written; for a field, where its name was.
        faults: What cannot be turned, with its place.
    """

    positions: dict[JsonPath, Position] = field(default_factory=dict)
    faults: list[tuple[Position, Fault]] = field(default_factory=list)
    _nodes: int = 0
    _depth: int = 0

    def document(self, root: yaml.Node | None) -> Json:
        """The value of a document; None in place of what is at fault."""
        try:
            size = expanded_size(root)
        except TooDeep as deep:
            self.faults.append((deep.position, Fault((), str(deep))))
            return None
        return self._too_many(root) if root is not None and size > MOST_VALUES else self._read(root, ())

    def _read(self, node: yaml.Node | None, path: JsonPath) -> Json:
        if node is None:
            return None
        self._nodes += 1
        if self._nodes > MOST_VALUES:  # what is merged is read for each place that it is merged into
            return self._too_many(node)
        self.positions.setdefault(path, position_of(node))
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
                self.positions[*path, key] = position_of(key_node)
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
        self.faults.append((position_of(node), Fault(path, message)))

    def _too_deep(self, node: yaml.Node, path: JsonPath) -> None:
        # an anchor that holds itself is met again and again: once is said enough
        message = f"nested more than {DEEPEST} deep"
        if all(fault.message != message for _, fault in self.faults):
            self._refuse(node, path[:3], message)

    def _too_many(self, node: yaml.Node) -> None:
        message = f"over {MOST_VALUES:,} values, anchors expanded"
        if all(fault.message != message for _, fault in self.faults):
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
