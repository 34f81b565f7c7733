"""The history checker: replays the recorded history through the transition tables, and compares it with the stored rows.

It reads and never writes. Where it finds nothing, every invariant that rows can show holds. `interlock verify` is
the command; docs/verify.md says what each kind of finding means.
"""

from __future__ import annotations

from .checking import verify
from .findings import KINDS, Finding, Kind, Verification

__all__ = ["KINDS", "Finding", "Kind", "Verification", "verify"]
