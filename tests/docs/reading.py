"""The documents as the tests read them: their blocks of code, their links, what they name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tests.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DOCUMENTS", "anchors", "blocks", "inline_code", "links", "without_code"]

DOCUMENTS: Final = (
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)

_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_INLINE: Final = re.compile(r"`([^`\n]+)`")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return [body for found, body in _BLOCK.findall(path.read_text(encoding="utf-8")) if found == language]


def without_code(path: Path) -> str:
    """The text without its fenced blocks."""
    return _BLOCK.sub("", path.read_text(encoding="utf-8"))


def inline_code(path: Path) -> list[str]:
    """What stands between single backticks outside of fenced blocks."""
    return _INLINE.findall(without_code(path))


def links(path: Path) -> Iterator[tuple[Path, str]]:
    """The links that lead inside the repository: the file, and the anchor in it ('' for none)."""
    for target in _LINK.findall(without_code(path)):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            yield ((path.parent / name).resolve() if name else path), anchor


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = _HEADING.findall(without_code(path))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
