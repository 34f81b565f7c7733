"""Runs as tests write them: what bodies did and how steps stand, in a few words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .facts import Body, Case, Moment, Said, StepFact
from .plans import Act, Plan, StepPlan

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["asked", "body", "run", "step"]


def step(key: str, *after: str, fates: tuple[str, ...] | None = ("return 0",), **options: Any) -> StepPlan:
    """A step with a body that returns, unless `fates` say otherwise."""
    return StepPlan(key, after, fates=fates, **options)


def body(key: str, number: int = 0, how: str | None = "return", *, at: float | None = None, **options: Any) -> Body:
    """A run of a body that took a tenth of a second; each begins ten seconds after the one before it."""
    began_at = 10.0 * (number + 1) if at is None else at
    fate = options.pop("fate", {"return": "return", "kill": "kill"}.get(how or "", "raise"))
    given = options.pop("given", {})
    made = Body(key, f"{key}{number}", number + 1, number, fate, given, began_at, began_at + 0.1, how, **options)
    return replace(made, result={"body": made.name, "value": 1}) if how == "return" and made.result is None else made


def asked(verb: Any, key: str | None = None, *, at: float = 15.0, **options: Any) -> Said:
    """What somebody asked for and got."""
    mode = options.pop("mode", "interrupt")
    return Said(Act(verb, (None, "now"), key, mode=mode), options.pop("by", "ann"), at, at + 0.1, **options)


def run(
    *steps: StepPlan,
    status: str = "completed",
    ends: Mapping[str, str] | None = None,
    bodies: tuple[Body, ...] = (),
    said: tuple[Said, ...] = (),
    stops: tuple[tuple[float, str | None, str, str], ...] = (),
    results: Mapping[str, Any] | None = None,
    losses: Mapping[str, int] | None = None,
    **options: Any,
) -> Case:
    """A run of these steps. Steps are completed unless `ends` say otherwise, each with the result of its last body."""
    plan = Plan("seed", 0, steps)
    by_key: dict[str, list[Body]] = {}
    for each in bodies:
        by_key.setdefault(each.key, []).append(each)
    facts = {}
    for key in [*(each.key for each in steps), *(key for key in by_key if "." in key), *(ends or {})]:
        state = (ends or {}).get(key, "completed")
        returned = [each.result for each in by_key.get(key, ()) if each.how == "return"]
        result = returned[-1] if returned and state == "completed" else None
        result = (results or {}).get(key, result)
        facts[key] = StepFact(key, state, len(by_key.get(key, ())), result, (losses or {}).get(key, 0))
    moments = tuple(Moment(*stop) for stop in stops)
    if status in ("failed", "cancelled"):
        moments = (*moments, Moment(100.0, None, status, "engine"))
    return Case(plan, "run", status, 100.0, facts, by_key, said, moments, **options)
