"""What is fuzzed: each target takes any bytes, and raises only where a promise is broken.

The promises: nothing but the errors that are documented comes out, an input costs little time, and what is accepted is what it
says. Memory is bounded by whoever runs them. This module needs no fuzzer, so that the seeds are replayed by the ordinary tests.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from interlock.client.authoring.workflow import Workflow
from interlock.client.control_link import outcome_result
from interlock.core.errors import ConfigurationError, InterlockError, InvalidPlan
from interlock.core.json_values import plain_json
from interlock.core.machine.guard_rules_file import load_guard_rules
from interlock.core.settings import Settings
from interlock.signals.control.admission import DEEPEST, Admission, Admitted, Rejected
from interlock.signals.control.command import REPLY_PATTERN, Command, parse_args
from interlock.signals.control.signing import Keyring
from interlock.signals.events.cloud_event import UnreadableEvent, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["SEEDS", "TARGETS"]

SEEDS: Final = Path(__file__).with_name("seeds")

_LONGEST: Final = 1_000_000
_CPU_S: Final = 5.0  # of this process, instrumented; other processes of the machine do not count
_KEYS: Final = {"alpha": ["a" * 40, "o" * 40], "beta": "b" * 40}
_SETTINGS: Final = Settings(signing_keys=_KEYS, max_command_bytes=64 * 1024)  # type: ignore[arg-type] # as a user gives them
_NOW: Final = 1_800_000_000.0
_KEYRING: Final = Keyring.of(_SETTINGS, lambda: _NOW)
_ADMISSION: Final = Admission(_SETTINGS, _KEYRING)
_FILE: Final = Path(tempfile.mkdtemp(prefix="interlock-fuzz-")) / "input.yaml"


@contextmanager
def _in_time() -> Iterator[None]:
    start = time.process_time()
    yield
    took_s = time.process_time() - start
    assert took_s < _CPU_S, f"{took_s:.1f} s of CPU"


@contextmanager
def _short(expected: type[Exception]) -> Iterator[None]:
    """Let the documented error pass, if it says something, and not without end."""
    try:
        yield
    except expected as error:
        told = str(error)
    else:
        return
    assert 0 < len(told) < _LONGEST, f"{len(told)} characters of faults"


# --- control messages, their answers, and events


def control(data: bytes) -> None:
    """A message of the control queue: as it came, and, where it is a command of a session with a key, signed."""
    with _in_time():
        found = _ADMISSION.read(data)
        if isinstance(found, Rejected):
            _check_rejected(found)
        else:
            _check_admitted(found)
        _sign_and_read(data)
        _check_answer(data)
        _check_event(data)


def _check_rejected(found: Rejected) -> None:
    assert found.reply_to is None or re.fullmatch(REPLY_PATTERN, found.reply_to)
    text = str(found.refusal)
    assert len(text) < 20_000, "a refusal is short, whatever it refuses"
    assert text.isprintable(), "nothing of it can pass for another line of a log"


def _check_admitted(found: Admitted) -> None:
    command = found.command
    assert found.key is not None or not _KEYRING.of_session(command.session_id), "unsigned, in a session with a key"
    assert parse_args(command) == found.args, "what is carried out is what was read"
    again = _ADMISSION.read(json.dumps(command.document()))
    assert isinstance(again, Admitted)
    assert again.command == command, "what is written back is what was read"


def _sign_and_read(data: bytes) -> None:
    """Let the fuzzer behind the signature, which it cannot guess."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    try:
        command = Command.model_validate({**document, "session_id": "alpha", "reply_to": None})
        if plain_json(command.args, max_depth=DEEPEST)[1]:
            return
        signed = _KEYRING.sign(command)
        body = json.dumps(signed.document())
    except (ValueError, RecursionError):
        return  # the client's own door; what it does not let out is no message
    found = _ADMISSION.read(body)
    if isinstance(found, Admitted):
        assert found.command == signed
        assert found.key == _KEYRING.of_session("alpha")[0]
    else:
        assert found.refusal.code == "invalid", f"signed, and yet {found.refusal.code}"
    for other in (
        {**signed.document(), "session_id": "beta"},
        {**signed.document(), "actor": f"{signed.actor}x"[-200:]},
    ):
        twisted = _ADMISSION.read(json.dumps(other))
        assert isinstance(twisted, Rejected) or signed.actor == other["actor"], "one signature for two commands"


def _check_answer(data: bytes) -> None:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(answer, dict):
        assert not _KEYRING.trusts(answer, "alpha", "interlock.reply.x"), "nobody signed it"
        with suppress(InterlockError):
            outcome_result(answer)


def _check_event(data: bytes) -> None:
    try:
        change = decode(data)
    except UnreadableEvent:
        return
    assert decode(encode(change)) == change


# --- YAML


def workflow(data: bytes) -> None:
    """A workflow file, by its bytes and as text."""
    _FILE.write_bytes(data)
    text = "\n" + data.decode("utf-8", "replace")
    with _in_time():
        for source in (_FILE, text):
            plan: Workflow | None = None
            with _short(InvalidPlan):
                plan = Workflow.from_yaml(source)
            if plan is not None:
                assert Workflow.from_yaml("\n" + plan.to_yaml()) == plan, "written and read again, it is another plan"
                plan.to_mermaid()
                plan.to_dot()


def guards(data: bytes) -> None:
    """A guards file."""
    _FILE.write_bytes(data)
    with _in_time(), _short(ConfigurationError):
        load_guard_rules(_FILE)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"control": control, "workflow": workflow, "guards": guards}
