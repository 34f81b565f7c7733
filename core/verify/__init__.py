"""The history checker: replays what was recorded through the tables, and compares it with what is there.

It reads and never writes. What it finds is a fact about the stored rows; where it finds nothing, every invariant that rows can
show holds. `interlock verify` is this on the command line; docs/verify.md says what each kind of finding means.
"""

from __future__ import annotations

from .checking import verify
from .findings import KINDS, Finding, Kind, Verification

__all__ = ["KINDS", "Finding", "Kind", "Verification", "verify"]
