"""What bodies have done, in a file that no fault touches: each entry is one append, which the system does whole or not at all.

It is the world outside: what Interlock recorded is compared with it. It imports nothing of Interlock.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Entry", "append", "read"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that one run of a body did.

    Attributes:
        key: The step's idempotency key.
        run_id: The workflow run.
        attempt: Which attempt it was.
        body: A random name of this run of the body.
        what: `begin`, `effect` (the work is done), `refused` (it raised on purpose), or another word of the suite.
        value: With `effect`, what it came to; else JSON of the suite.
        pid: The process that it ran in.
        began_at: When this run of the body began, by `time.time`.
        at: When the entry was made, where the suite says so.
    """

    key: str
    run_id: str
    attempt: int
    body: str
    what: str
    value: Any = 0
    pid: int = 0
    began_at: float = 0.0
    at: float = 0.0


def append(path: Path | str, entry: Entry) -> None:
    """Add one entry; after the return it is there, whatever happens to this process."""
    line = json.dumps(asdict(entry), separators=(",", ":")).encode() + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read(path: Path) -> Mapping[str, list[Entry]]:
    """All entries by idempotency key, in the order in which they were made."""
    entries: dict[str, list[Entry]] = defaultdict(list)
    if path.exists():
        for line in path.read_text().splitlines():
            entry = Entry(**json.loads(line))
            entries[entry.key].append(entry)
    return entries
