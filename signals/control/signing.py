"""Signatures of control commands and of their answers: HMAC-SHA256 with a key of the session (docs/adr/0006-signed-commands.md).

What is signed is not the message but a canonical form of what was read from it, so that what was checked is what is carried out.
Keys are never shown: they are in no repr, log line or error, and an answer does not say which key would have been right.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from interlock.core.errors import SignatureRefused
from interlock.core.settings import ANY_SESSION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from interlock.core.settings import Settings

    from .command import Command

__all__ = ["Keyring", "canonical_form"]

_COMMAND: Final = "interlock.command/1"
_ANSWER: Final = "interlock.answer/1"


def canonical_form(kind: str, prefix: str, document: Mapping[str, Any]) -> bytes:
    """What is signed: two lines that say what for and where, then the document as JSON in ASCII, keys sorted, without spaces.

    Args:
        kind: What the document is, so that an answer cannot be passed off as a command.
        prefix: `interlock_channel_prefix`, so that a command of one environment is none in another.
        document: JSON.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return f"{kind}\n{prefix}\n{text}".encode("ascii")


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of all sessions that this process knows, and the rules by which they are used.

    Attributes:
        prefix: `interlock_channel_prefix`.
        window_s: How far a command's time may be from the clock, before or behind it.
        required: Whether what is not signed is refused where the session has a key.
        clock: Seconds since 1970.
    """

    keys: Mapping[str, tuple[bytes, ...]] = field(repr=False)
    prefix: str
    window_s: float
    required: bool = True
    clock: Callable[[], float] = time.time

    @classmethod
    def of(cls, settings: Settings, clock: Callable[[], float] = time.time) -> Self:
        """The keyring of some settings."""
        keys = {
            session: tuple(key.get_secret_value().encode() for key in of_session)
            for session, of_session in settings.signing_keys.items()
        }
        return cls(keys, settings.channel_prefix, settings.signature_window_s, settings.signing_required, clock)

    def of_session(self, session_id: str) -> tuple[bytes, ...]:
        """The session's own keys, else those of every session; the first one signs."""
        return self.keys.get(session_id) or self.keys.get(ANY_SESSION) or ()

    # --- commands ------------------------------------------------------------------------------------------------------

    def sign(self, command: Command) -> Command:
        """The command with time and signature; as it is where its session has no key."""
        keys = self.of_session(command.session_id)
        if not keys:
            return command
        dated = command.model_copy(update={"signed_at": int(self.clock()), "signature": None})
        return dated.model_copy(update={"signature": _signature(keys[0], self._form_of(dated))})

    def check(self, command: Command) -> bytes | None:
        """Refuse a command that its session's keys have not signed, or not lately.

        Returns:
            The key that signed it, by which its answer is signed; None where the session has none, or none is required yet.

        Raises:
            SignatureRefused: It says what is missing, and nothing of keys or runs.
        """
        keys = self.of_session(command.session_id)
        if not keys or (command.signature is None and not self.required):
            return None
        if command.signature is None or command.signed_at is None:
            message = (
                "takes signed commands only, and this one has no signature: give the client interlock_signing_keys"
            )
            raise SignatureRefused(command.command, command.session_id, message, code="unsigned")
        key = _matching(keys, self._form_of(command), command.signature)
        if key is None:
            message = (
                "the signature is none of this session's keys: compare interlock_signing_keys, and the channel prefix"
            )
            raise SignatureRefused(command.command, command.session_id, message, code="bad_signature")
        off_s = self.clock() - command.signed_at
        if abs(off_s) > self.window_s:
            when = f"{abs(off_s):,.0f} s {'ago' if off_s > 0 else 'ahead'}"
            message = f"signed {when}, and {self.window_s:g} s is the limit: send it anew, and compare the clocks"
            raise SignatureRefused(command.command, command.session_id, message, code="expired")
        return key

    def _form_of(self, command: Command) -> bytes:
        return canonical_form(_COMMAND, self.prefix, command.model_dump(exclude={"signature"}))

    # --- answers -------------------------------------------------------------------------------------------------------

    def seal(self, answer: Mapping[str, Any], reply_to: str, key: bytes | None) -> dict[str, Any]:
        """The answer with its signature by `key`; without one where there is no key.

        The reply queue is part of what is signed: it is made for one call, so the answer to another call is none to this one.
        """
        if key is None:
            return dict(answer)
        return {**answer, "signature": _signature(key, self._form_of_answer(answer, reply_to))}

    def trusts(self, answer: Mapping[str, Any], session_id: str, reply_to: str) -> bool:
        """Whether a client may believe an answer."""
        keys = self.of_session(session_id)
        signature = answer.get("signature")
        if not keys or (signature is None and not self.required):
            return True
        if not isinstance(signature, str) or not signature.isascii():
            return False
        try:
            form = self._form_of_answer({name: answer[name] for name in answer if name != "signature"}, reply_to)
        except (ValueError, RecursionError):
            return False  # no JSON that could have been signed
        return _matching(keys, form, signature) is not None

    def _form_of_answer(self, answer: Mapping[str, Any], reply_to: str) -> bytes:
        return canonical_form(_ANSWER, self.prefix, {"answer": answer, "reply_to": reply_to})


def _signature(key: bytes, form: bytes) -> str:
    return hmac.new(key, form, hashlib.sha256).hexdigest()


def _matching(keys: tuple[bytes, ...], form: bytes, signature: str) -> bytes | None:
    """The key that made the signature. All are tried, each compared in constant time: how long it takes tells nothing."""
    matching = [key for key in keys if hmac.compare_digest(_signature(key, form), signature)]
    return matching[0] if matching else None
