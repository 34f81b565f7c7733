"""The cause of a transition: who makes it and why, as the history row says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from interlock.core.json_values import checked_json
from interlock.core.names import check_text

__all__ = ["ENGINE", "Cause"]

ENGINE: Final = "engine"
"""The actor of moves that nobody asked for: conclusions, deadlines, retries."""

_ACTOR_CHARACTERS: Final = 200
_REASON_CHARACTERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Cause:
    """Who moves something, and why.

    Attributes:
        actor: Stored as `transitioned_by`.
        reason: Stored as `transition_reason`.
        meta: Stored with the history row.
        vetoable: Whether a listener or an attached guard may stop the move: a caller's or a command's, never what a worker or
            the engine reports.
    """

    actor: str
    reason: str | None = None
    meta: dict[str, Any] | None = None
    vetoable: bool = False

    @classmethod
    def asked(cls, actor: str, reason: str | None, meta: dict[str, Any] | None = None) -> Cause:
        """The cause of a move that a caller or a command asks for: checked, and listeners may veto it.

        Raises:
            InvalidText: The actor or the reason cannot be stored.
            NotJson: `meta` is not JSON.
        """
        actor = check_text("transitioned_by", actor, _ACTOR_CHARACTERS)
        if reason is not None:
            reason = check_text("reason", reason, _REASON_CHARACTERS)
        if meta is not None:
            meta = checked_json("meta", meta)
        return cls(actor, reason, meta, vetoable=True)

    def because(self, reason: str | None, meta: dict[str, Any] | None = None) -> Cause:
        """The same actor with another reason."""
        return Cause(actor=self.actor, reason=reason, meta=meta, vetoable=self.vetoable)
