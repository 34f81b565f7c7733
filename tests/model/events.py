"""Everything that may happen in the small world of a run, in words and deeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .situation import DRAINER, HOLDER
from .world import Happening, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from .plans import Plan, StepPlan

__all__ = ["Event", "events_of"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that may happen in the world.

    Attributes:
        text: What it is, for people.
        act: Does it.
        harmless: Whether it must change nothing.
    """

    text: str
    act: Callable[[World], Happening]
    harmless: bool = False


def events_of(plan: Plan) -> list[Event]:
    """Everything that may happen in a run of `plan`."""
    found = [
        Event("the operator pauses the run", lambda world: world.ask("pause")),
        Event("the operator resumes the run", World.resume),
        Event("the operator cancels the run", lambda world: world.ask("cancel")),
        Event("the sweeper revives the run", World.revive),
        Event("the deadline of the run passes", lambda world: world.ask("is_overdue")),
    ]
    for step in plan.steps.values():
        found += [*_news(step.key), *_bodies(step), *_verbs(step)]
    return found


def _news(key: str) -> list[Event]:
    return [
        Event(f"a worker takes the message of {key}", lambda world: world.deliver(key)),
        Event(
            f"a worker takes another copy of the message of {key}", lambda world: world.deliver_copy(key), harmless=True
        ),
        Event(f"a worker takes an old message of {key}", lambda world: world.deliver_old(key), harmless=True),
        Event(f"the worker of {key} repeats its claim", lambda world: world.claim_again(key), harmless=True),
        Event(f"the message of {key} is lost, or its worker dies before it claims", lambda world: world.lose(key)),
        Event(f"the sweeper sends the message of {key} again", lambda world: world.send_again(key)),
        Event(
            f"an attempt of {key} that was given up reports a result",
            lambda world: world.complete_old(key),
            harmless=True,
        ),
        Event(
            f"an attempt of {key} that was given up reports a failure", lambda world: world.fail_old(key), harmless=True
        ),
        Event(
            f"a revoke of an attempt of {key} that was given up is reported",
            lambda world: world.revoke_old(key),
            harmless=True,
        ),
        Event(f"a worker discards the message of {key}, revoked from outside", lambda world: world.discard(key)),
        Event(
            f"a worker discards the message of {key}, which has expired", lambda world: world.discard(key, expired=True)
        ),
        Event(f"the holder of {key} is killed from outside", lambda world: world.terminate(key, softly=False)),
        Event(f"the holder of {key} is told to stop from outside", lambda world: world.terminate(key, softly=True)),
        Event(f"the sweeper finds the lease of {key} ended", lambda world: world.lease_ends(key)),
        Event(f"the lease of the stopped attempt of {key} ends", lambda world: world.drain_ends(key)),
    ]


def _bodies(step: StepPlan) -> list[Event]:
    key = step.key
    found: list[Event] = []
    for who, name in ((HOLDER, f"the holder of {key}"), (DRAINER, f"the stopped attempt of {key}")):
        found += [
            Event(f"{name} reports its result", lambda world, who=who: world.complete(key, who)),
            Event(f"{name} reports an error", lambda world, who=who: world.fail(key, who, "error")),
            Event(
                f"{name} reports that it was interrupted", lambda world, who=who: world.fail(key, who, "interrupted")
            ),
            Event(f"the worker of {name} dies", lambda world, who=who: world.die(key, who)),
        ]
        if step.policy.initial_delay_s > 0:  # without a delay it is the same as an interruption
            found.append(
                Event(f"{name} asks Celery to retry it", lambda world, who=who: world.fail(key, who, "celery_retry")),
            )
    return found


def _verbs(step: StepPlan) -> list[Event]:
    key = step.key
    found = [
        Event(f"the sweeper begins the retry of {key}", lambda world: world.retry_comes(key)),
        Event(f"the operator pauses {key}", lambda world: world.ask("pause_step", key)),
        Event(f"the operator resumes {key}", lambda world: world.resume_step(key)),
        Event(f"the operator retries {key}", lambda world: world.ask("retry", key)),
        Event(f"the operator settles {key}", lambda world: world.ask("settle", key)),
        Event(f"the message of {key} cannot be made", lambda world: world.unsendable(key)),
    ]
    if step.asks:
        found += [
            Event(f"somebody approves {key}", lambda world: world.approve(key)),
            Event(f"somebody rejects {key}", lambda world: world.ask("decide", key, "rejected")),
            Event(f"the deadline of {key} passes", lambda world: world.deadline_passes(key)),
        ]
    return found
