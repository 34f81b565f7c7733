"""The table of settings in README.md, made of `core/settings.py`; a setting that no code reads yet says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from interlock.core.plan.schema import field_docstrings
from interlock.core.settings import Settings

__all__ = ["render"]

_ROOT: Final = Path(__file__).resolve().parent.parent
_CODE: Final = ("cli", "client", "core", "signals", "worker")
_READ: Final = re.compile(r"settings\.([a-z_]+)\b")
_UNITS: Final = {"_s": " s", "_bytes": " bytes"}


def render() -> str:
    """The table as Markdown: each setting, its default, and what it means."""
    read, meanings = _names_that_are_read(), field_docstrings(Settings)
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        meaning = " ".join(meanings[name].split())
        note = "" if name in read else " *Not in force yet.*"
        lines.append(f"| `{name}` | {_default(name, field.get_default(call_default_factory=True))} | {meaning}{note} |")
    return "\n".join([*lines, ""])


def _names_that_are_read() -> set[str]:
    files = (path for folder in _CODE for path in (_ROOT / folder).rglob("*.py"))
    return {name for path in files for name in _READ.findall(path.read_text(encoding="utf-8"))}


def _default(name: str, value: object) -> str:
    if value in (None, {}):
        return "none"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"`{value}`"
    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), "")
    return f"{value:,}{unit}"
