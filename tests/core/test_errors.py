"""Errors survive pickling: Celery and multiprocessing carry them between processes."""

from __future__ import annotations

import pickle

import pytest

from interlock.core import (
    EntityNotFound,
    GuardRefused,
    InterlockError,
    InvalidPlan,
    StateMachineError,
    TransitionConflict,
    TransitionNotAllowed,
    TransitionVetoed,
    UnknownState,
)
from interlock.core.errors import (
    AlreadyDecided,
    CommandRefused,
    CommandTimeout,
    ConfigurationError,
    DatabaseBusy,
    ExpressionError,
    InvalidName,
    NotMigrated,
    PayloadTooLarge,
    RunNotFound,
)


@pytest.mark.parametrize(
    "error",
    [
        UnknownState(entity_type="workflow_run", state="odd", known=("draft",)),
        EntityNotFound(entity_type="workflow_run", entity_id="1"),
        TransitionNotAllowed(entity_type="workflow_step", entity_id="1", from_state="a", to_state="b", allowed=("c",)),
        GuardRefused(entity_type="workflow_run", entity_id="1", from_state="a", to_state="b", guard="g", detail="d"),
        TransitionConflict(entity_type="workflow_run", entity_id="1", from_state="a", to_state="b"),
        TransitionVetoed("not on Fridays"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling_with_their_attributes(error: StateMachineError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes; what Celery and multiprocessing do
    assert type(copy) is type(error)
    assert isinstance(copy, StateMachineError)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    for name in ("entity_type", "entity_id", "entity", "from_state", "to_state", "allowed", "guard", "retryable"):
        assert getattr(copy, name) == getattr(error, name)


@pytest.mark.parametrize(
    "error",
    [
        AlreadyDecided("approve", "approved", "ann"),
        CommandRefused("pause", "no", code="invalid"),
        CommandTimeout("id-1", 2.5),
        ConfigurationError("lease_s: too short"),
        DatabaseBusy("deadlock"),
        ExpressionError("a +", "ends too soon"),
        InvalidName("session_id", "a b"),
        InvalidPlan(["one", "two"]),
        NotMigrated(None, "0001"),
        PayloadTooLarge("input", 2, 1),
        RunNotFound("1"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_other_errors_survive_pickling_as_well(error: InterlockError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - as above
    assert type(copy) is type(error)
    assert isinstance(copy, InterlockError)
    assert (str(copy), vars(copy), copy.retryable) == (str(error), vars(error), error.retryable)
