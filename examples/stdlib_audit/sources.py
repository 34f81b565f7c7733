"""Finds the modules of the standard library and deals them out in shards of equal weight."""

from __future__ import annotations

import heapq
import platform
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LEFT_OUT = frozenset({"__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests"})
"""Folders that hold installed packages, caches, or tests and their data."""


class Source(TypedDict):
    """One module's file."""

    module: str
    """Dotted name: `asyncio.base_events`; a package's `__init__.py` goes by the package's name."""
    path: str
    """Relative to the root, with forward slashes."""
    bytes: int


class Shard(TypedDict):
    """What one parse step reads."""

    root: str
    """Absolute folder that the paths are relative to."""
    sources: list[Source]


class Listing(TypedDict):
    """The result of the first step."""

    python: str
    """Implementation and version, as in `CPython 3.11.7`."""
    root: str
    modules: int
    bytes: int
    shards: list[Shard]


def list_sources(shards: int, root: str | None = None) -> Listing:
    """Lists every module under `root` once and splits the list.

    Args:
        shards: The number of groups, at least 1. With fewer modules than that, some are empty.
        root: A folder of modules; the running interpreter's standard library by default.

    Raises:
        ValueError: There is no module under the root, or `shards` is less than 1.
    """
    if shards < 1:
        raise ValueError(f"shards must be at least 1, not {shards}")
    folder = Path(root or sysconfig.get_path("stdlib")).resolve()
    sources = sorted(_sources(folder), key=lambda source: source["path"])
    if not sources:
        raise ValueError(f"no Python source under {folder}: is the standard library installed as source files?")
    return Listing(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        root=str(folder),
        modules=len(sources),
        bytes=sum(source["bytes"] for source in sources),
        shards=[Shard(root=str(folder), sources=group) for group in balance(sources, shards)],
    )


def balance(sources: Iterable[Source], shards: int) -> list[list[Source]]:
    """Splits sources in groups of nearly equal bytes, the same way each time.

    The heaviest module goes first, each to the group that is lightest so far, so that two groups
    never differ by more than the heaviest module.
    """
    groups: list[list[Source]] = [[] for _ in range(shards)]
    loads = [(0, index) for index in range(shards)]
    for source in sorted(sources, key=lambda source: (-source["bytes"], source["path"])):
        load, index = loads[0]
        groups[index].append(source)
        heapq.heapreplace(loads, (load + source["bytes"], index))
    return [sorted(group, key=lambda source: source["path"]) for group in groups]


def _sources(root: Path) -> Iterator[Source]:
    for path in _python_files(root):
        relative = path.relative_to(root)
        yield Source(module=_module_name(relative), path=relative.as_posix(), bytes=path.stat().st_size)


def _python_files(folder: Path) -> Iterator[Path]:
    """Walks down, but not into the folders left out: site-packages may hold far more files."""
    for entry in folder.iterdir():
        if entry.is_dir():
            if entry.name.isidentifier() and entry.name not in LEFT_OUT and not entry.is_symlink():
                yield from _python_files(entry)
        elif entry.suffix == ".py":
            yield entry


def _module_name(relative: Path) -> str:
    parts = relative.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
