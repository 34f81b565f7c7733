"""What signatures of commands and answers hold off, without a broker: the canonical form, the window, other sessions' keys."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from interlock.core.errors import ConfigurationError, SignatureRefused
from interlock.core.settings import Settings
from interlock.signals.control.admission import Admission, Admitted, Rejected
from interlock.signals.control.command import Command, parse_args, parse_fields
from interlock.signals.control.signing import Keyring

ALPHA, BETA, SHARED, NEXT = ("a" * 40, "b" * 40, "s" * 40, "n" * 40)
NOW = 1_800_000_000.0


def _keyring(keys: dict[str, Any], now: float = NOW, **settings: Any) -> Keyring:
    return Keyring.of(Settings(signing_keys=keys, **settings), lambda: now)


def _command(**fields: Any) -> Command:
    return parse_fields({"id": "c1", "command": "status", "session_id": "alpha", "workflow_id": "w1", **fields})


def _code(keyring: Keyring, command: Command) -> str:
    with pytest.raises(SignatureRefused) as refused:
        keyring.check(command)
    assert refused.value.session_id == command.session_id
    return refused.value.code


def test_what_a_session_signs_its_engine_takes() -> None:
    client, engine = _keyring({"alpha": ALPHA}), _keyring({"alpha": ALPHA, "beta": BETA})
    assert engine.check(client.sign(_command())) == ALPHA.encode()


def test_the_signature_is_what_the_document_says_it_is() -> None:
    """Computed here from the description in docs/adr/0006-signed-commands.md, as a client in another language would."""
    signed = _keyring({"alpha": ALPHA}).sign(_command(args={}, actor="Adá", reason="tea"))
    form = (
        'interlock.command/1\ninterlock\n{"actor":"Ad\\u00e1","args":{},"command":"status","id":"c1","if_seq":null,'
        '"reason":"tea","reply_to":null,"session_id":"alpha","signed_at":1800000000,"workflow_id":"w1"}'
    )
    assert signed.signature == hmac.new(ALPHA.encode(), form.encode(), hashlib.sha256).hexdigest()


def test_an_unsigned_command_of_a_session_with_a_key_is_refused() -> None:
    engine = _keyring({"alpha": ALPHA})
    assert _code(engine, _command()) == "unsigned"
    assert _code(engine, _command(signature="0" * 64)) == "unsigned", "a signature without its time is none"
    assert engine.check(_command(session_id="other")) is None, "sessions without a key are as before"


def test_another_sessions_key_does_not_sign_for_this_one() -> None:
    engine = _keyring({"alpha": ALPHA, "beta": BETA, "*": SHARED})
    claimed = _keyring({"alpha": BETA}).sign(_command())
    assert _code(engine, claimed) == "bad_signature"
    general = _keyring({"*": SHARED}).sign(_command())
    assert _code(engine, general) == "bad_signature", "the key of all others is none of a session that has its own"
    assert engine.check(_keyring({"*": SHARED}).sign(_command(session_id="gamma"))) == SHARED.encode()


CHANGES: dict[str, Any] = {
    "id": "c2",
    "command": "cancel",
    "session_id": "beta",
    "workflow_id": "w2",
    "actor": "eve",
    "reason": "because",
    "args": {"step": "b"},
    "if_seq": 7,
    "reply_to": "interlock.reply.eve",
    "signed_at": int(NOW) + 1,
}


@pytest.mark.parametrize("field", sorted(set(Command.model_fields) - {"signature"}))
def test_no_field_can_be_changed_under_a_signature(field: str) -> None:
    keyring = _keyring({"alpha": ALPHA, "beta": ALPHA})
    signed = keyring.sign(_command(command="result", args={"step": "a"}))
    assert keyring.check(signed) is not None
    assert _code(keyring, signed.model_copy(update={field: CHANGES[field]})) == "bad_signature"


@given(st.integers(0, 63), st.sampled_from("0123456789abcdef"))
def test_no_digit_of_a_signature_can_be_changed(place: int, digit: str) -> None:
    keyring = _keyring({"alpha": ALPHA})
    signed = keyring.sign(_command())
    text = str(signed.signature)
    changed = text[:place] + digit + text[place + 1 :]
    if changed != text:
        assert _code(keyring, signed.model_copy(update={"signature": changed})) == "bad_signature"


def test_a_recorded_command_is_too_old_before_its_id_is_forgotten() -> None:
    signed = _keyring({"alpha": ALPHA}).sign(_command())
    settings = Settings()
    assert _code(_keyring({"alpha": ALPHA}, NOW + settings.signature_window_s + 1), signed) == "expired"
    assert _code(_keyring({"alpha": ALPHA}, NOW - settings.signature_window_s - 2), signed) == "expired"
    assert _keyring({"alpha": ALPHA}, NOW + settings.signature_window_s).check(signed) is not None
    assert 2 * settings.signature_window_s < settings.command_ids_kept_s


def test_a_command_of_one_environment_is_none_in_another() -> None:
    signed = _keyring({"alpha": ALPHA}, channel_prefix="staging").sign(_command())
    assert _code(_keyring({"alpha": ALPHA}, channel_prefix="production"), signed) == "bad_signature"


def test_keys_are_changed_without_a_gap() -> None:
    """Engines learn the new key first, then clients sign with it, then the old one is taken away."""
    old, both, new = ({"alpha": keys} for keys in ([ALPHA], [NEXT, ALPHA], [NEXT]))
    for client, engine in ((old, old), (old, both), (both, both), (new, both), (new, new)):
        assert _keyring(engine).check(_keyring(client).sign(_command())) is not None
    assert _code(_keyring(new), _keyring(old).sign(_command())) == "bad_signature"


def test_while_keys_are_brought_out_unsigned_commands_pass_and_wrong_ones_do_not() -> None:
    engine = _keyring({"alpha": ALPHA}, signing_required=False)
    assert engine.check(_command()) is None
    assert _code(engine, _keyring({"alpha": BETA}).sign(_command())) == "bad_signature"


# --- answers


def test_an_answer_is_believed_for_one_call_of_one_session_alone() -> None:
    keyring = _keyring({"alpha": ALPHA, "beta": BETA})
    sealed = keyring.seal({"id": "c1", "ok": True, "result": {"x": 1.5}}, "interlock.reply.one", ALPHA.encode())
    sealed = json.loads(json.dumps(sealed))
    assert keyring.trusts(sealed, "alpha", "interlock.reply.one")
    assert not keyring.trusts(sealed, "alpha", "interlock.reply.two"), "the answer to another call"
    assert not keyring.trusts(sealed, "beta", "interlock.reply.one"), "another session's"
    assert not keyring.trusts({**sealed, "result": {"x": 2}}, "alpha", "interlock.reply.one")
    assert not keyring.trusts({"id": "c1", "ok": True}, "alpha", "interlock.reply.one"), "unsigned"
    assert keyring.trusts({"id": "c1", "ok": True}, "gamma", "interlock.reply.one"), "a session without a key"
    for nonsense in (7, None, "", "é" * 64, [sealed["signature"]]):
        assert not keyring.trusts({**sealed, "signature": nonsense}, "alpha", "interlock.reply.one")


def test_a_command_cannot_be_passed_off_as_an_answer() -> None:
    keyring = _keyring({"alpha": ALPHA})
    signed = keyring.sign(_command(reply_to="interlock.reply.one"))
    assert not keyring.trusts(signed.document(), "alpha", "interlock.reply.one")


# --- admission


def test_what_is_turned_away_learns_nothing_but_what_it_lacks() -> None:
    admission = Admission(Settings(), _keyring({"alpha": ALPHA}))
    existing, missing = (
        admission.read(json.dumps({"id": "c1", "command": "status", "session_id": "alpha", "workflow_id": run}))
        for run in ("w1", "w2")
    )
    assert isinstance(existing, Rejected)
    assert isinstance(missing, Rejected)
    assert str(existing.refusal) == str(missing.refusal)
    assert existing.key is None, "its answer is signed by nothing"


def test_faults_in_the_arguments_are_told_to_those_who_signed() -> None:
    admission = Admission(Settings(), _keyring({"alpha": ALPHA}))
    bad = Command(id="c1", command="status", session_id="alpha", workflow_id="w1", args={"depth": 1})
    unsigned = admission.read(json.dumps(bad.document()))
    signed = admission.read(json.dumps(admission.keyring.sign(bad).document()))
    assert isinstance(unsigned, Rejected)
    assert unsigned.refusal.code == "unsigned"
    assert isinstance(signed, Rejected)
    assert (signed.refusal.code, signed.key) == ("invalid", ALPHA.encode())
    assert "args.depth" in str(signed.refusal)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_survives_the_way_from_client_to_engine_with_its_signature(result: Any) -> None:
    keyring = _keyring({"alpha": ALPHA})
    command = _command(command="settle", args={"step": "a", "result": result})
    found = Admission(Settings(), keyring).read(json.dumps(keyring.sign(command).document()))
    assert isinstance(found, Admitted)
    assert found.key is not None
    assert found.command.args == command.args


# --- keys in the settings


def test_keys_come_from_json_in_the_environment_and_from_mappings() -> None:
    text = json.dumps({"alpha": ALPHA, "beta": [BETA, NEXT], "*": SHARED})
    settings = Settings.load({"interlock_signing_keys": {"alpha": SHARED}}, {"INTERLOCK_SIGNING_KEYS": text})
    keyring = Keyring.of(settings)
    assert keyring.of_session("alpha") == (ALPHA.encode(),)
    assert keyring.of_session("beta") == (BETA.encode(), NEXT.encode())
    assert keyring.of_session("anything") == (SHARED.encode(),)
    assert Settings(signing_keys={"a": SecretStr(ALPHA)}).signing_keys["a"][0].get_secret_value() == ALPHA


@pytest.mark.parametrize(
    ("given_keys", "named"),
    [
        ("{", "JSON"),
        ([ALPHA], "sessions"),
        ({"alpha": "short-and-secret"}, "session alpha"),
        ({"alpha": []}, "session alpha"),
        ({"not a name": ALPHA}, "not a name"),
        ({"alpha": 7}, "alpha"),
    ],
)
def test_keys_that_cannot_be_used_are_refused_and_not_shown(given_keys: Any, named: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings.load({"interlock_signing_keys": given_keys}, {})
    assert "interlock_signing_keys" in str(refused.value)
    assert named in str(refused.value)
    for secret in (ALPHA, "short-and-secret"):
        assert secret not in str(refused.value)


def test_a_window_in_which_ids_are_forgotten_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="command_ids_kept_s"):
        Settings.load({"interlock_signing_keys": {"a": ALPHA}, "interlock_command_ids_kept_s": 500}, {})


def test_no_key_is_in_a_repr() -> None:
    settings = Settings(signing_keys={"alpha": ALPHA})
    keyring = Keyring.of(settings)
    signed = keyring.sign(_command())
    shown = f"{settings!r} {settings} {keyring!r} {Admitted(signed, parse_args(signed), ALPHA.encode())!r} {settings.model_dump()}"
    shown += repr(Admission(settings).read(b"{")) + settings.model_dump_json()
    assert ALPHA not in shown
    assert "alpha" in shown
