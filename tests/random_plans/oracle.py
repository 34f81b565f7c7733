"""How a run, and each of its steps, must have ended: from the plan, what bodies did, and what people asked for. Pure.

It imports nothing of the product's rules. Where people race it knows a set of allowed ends; where nobody did, the set has one
member. Each step is judged by how those that it waits for ended, so that one fault is told once and where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .attempts import NEAR_S, standings
from .plans import item_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .attempts import Standing
    from .facts import Body, Case, StepFact
    from .plans import Condition, StepPlan

__all__ = ["judge", "reused"]

_ENDS: Final = frozenset({"completed", "failed", "cancelled"})
_HEARD_S: Final = 5.0  # in which a result is recorded, on a busy machine, too
_ENGINE: Final = "engine"


def judge(case: Case) -> list[str]:
    """Everything that must not be, in words; empty where all is as it must be."""
    return [
        *_unknown(case),
        *(text for step in case.plan.steps for text in _Judgement(case, step).faults()),
        *_end(case),
        *_pauses(case),
        *_refusals(case),
        *(
            f"{said.by} asked to {said.act.verb} {said.act.step or 'the run'}: {said.refusal}"
            for said in case.said
            if said.wrong
        ),
    ]


def reused(old: Case) -> Mapping[str, Any]:
    """The results that a rerun takes over: of completed steps with none before them, however far, that ended badly."""
    bad: set[str] = set()
    kept: dict[str, Any] = {}
    for step in old.plan.steps:
        fact = old.steps.get(step.key)
        if fact is None or fact.status in ("failed", "cancelled") or bad.intersection(step.after):
            bad.add(step.key)
        elif fact.status == "completed":
            kept[step.key] = fact.result
    return kept


def _unknown(case: Case) -> Iterator[str]:
    """Steps and bodies that the plan does not have."""
    for key in sorted({*case.steps, *case.bodies}):
        owner = case.plan.owner(key)
        if owner is None or (owner.key != key and not 0 <= int(key.rpartition(".")[2]) < len(owner.items or ())):
            yield f"{key}: the plan has no such step"
    for key in case.bodies.keys() - case.steps.keys():
        yield f"{key}: a body ran for a step that is not there"


class _Judgement:
    """Of one step of the plan, and its items."""

    def __init__(self, case: Case, step: StepPlan) -> None:
        self._case, self._step = case, step
        self._fact = case.steps.get(step.key)
        self._cut = case.status in ("failed", "cancelled")
        self._corrected = bool(case.accepted("retry", "settle", key=step.key))

    def faults(self) -> Iterator[str]:
        """What must not be."""
        fact, key = self._fact, self._step.key
        if fact is None:
            yield f"{key}: the step is not there"
            return
        taken = None if self._case.forked_from is None else reused(self._case.forked_from)
        if taken is not None and key in taken:
            yield from self._taken_over(fact, taken[key])
        else:
            yield from self._decided(fact)
            yield from self._bodies()
        if self._step.items is not None:
            yield from self._items(fact)

    def _taken_over(self, fact: StepFact, result: Any) -> Iterator[str]:
        if fact.status != "completed":
            yield f"{fact.key}: had completed in the run before, and is {fact.status}"
        elif fact.result != result:
            yield f"{fact.key}: its result is not that of the run before"
        if self._case.bodies.get(fact.key):
            yield f"{fact.key}: had completed in the run before, and a body ran"

    # --- how it must have ended

    def _decided(self, fact: StepFact) -> Iterator[str]:
        allowed, why, may_run = self._allowed()
        if self._cut:
            allowed |= {"cancelled"}
        if self._case.accepted("settle", key=fact.key):
            allowed |= {"completed"}
        if self._case.accepted("retry", key=fact.key):  # what was not met before is not asked again
            allowed |= {"failed", *(self._worked()[0] if self._step.fates is not None else ["completed"])}
        if self._case.status in _ENDS and fact.status not in allowed:
            yield f"{fact.key}: is {fact.status}, must be {_either(allowed)}: {why}"
        ran = [key for key in self._keys_of_bodies() if self._case.bodies.get(key)]
        if ran and not may_run and not self._corrected:
            yield f"{fact.key}: its body ran and must not: {why}"

    def _keys_of_bodies(self) -> list[str]:
        step = self._step
        return [step.key] if step.items is None else [item_key(step.key, index) for index in range(len(step.items))]

    def _allowed(self) -> tuple[set[str], str, bool]:
        """Allowed ends of a run that was not cut short, why, and whether a body may have run."""
        right, why = self._right()
        begun, because, may_run = self._once_begun()
        if right is None:
            return {*begun, "skipped"}, f"{why}; {because}", may_run
        return (begun, because, may_run) if right else ({"skipped"}, why, False)

    def _right(self) -> tuple[bool | None, str]:
        """Whether those before it let it begin; None where people have changed their ends meanwhile."""
        ups = [self._case.steps[key] for key in self._step.after if key in self._case.steps]
        ends = {up.key: up.status for up in ups}
        words = f"{self._step.trigger} of {ends}"
        if any(self._case.accepted("retry", "settle", key=key) for key in self._step.after):
            return None, f"{words}, some of which were corrected"
        if self._step.trigger == "all_completed":
            return all(end == "completed" for end in ends.values()), words
        if self._step.trigger == "any_failed":
            return any(end == "failed" and self._is_final(key) for key, end in ends.items()), words
        settled = [
            end in ("completed", "skipped") or (end == "failed" and self._is_final(key)) for key, end in ends.items()
        ]
        return all(settled), words

    def _is_final(self, key: str) -> bool:
        """Whether a failed step has failed for good, and does not wait for its next attempt."""
        step = self._case.plan.by_key[key]
        possible, _ = standings(self._case, step, key)
        return not self._case.bodies.get(key) or any(standing.state == "failed" for standing in possible)

    def _once_begun(self) -> tuple[set[str], str, bool]:
        when = self._step.when
        if when is not None and when.kind != "always":
            holds = _holds(self._case, when)
            if self._is_unsure(when.key) and when.kind != "broken":
                ends, why, may_run = self._let_in()
                return (
                    {*ends, "skipped"},
                    f"its condition may have been looked at before {when.key} ended; {why}",
                    may_run,
                )
            if holds is not True:
                end = "failed" if holds is None else "skipped"
                return (
                    {end},
                    f"its condition {'is false' if end == 'skipped' else 'cannot be evaluated'}: {when}",
                    False,
                )
        return self._let_in()

    def _is_unsure(self, key: str) -> bool:
        """Whether the step may have looked at an earlier one before that ended as it has."""
        fact = self._case.steps.get(key)
        early = self._step.trigger == "any_failed" and (fact is None or fact.status != "failed")
        return early or bool(self._case.accepted("retry", "settle", key=key))

    def _let_in(self) -> tuple[set[str], str, bool]:
        """What follows once its trigger and its condition hold: its gate comes first."""
        gate, key = self._step.gate, self._step.key
        work = self._mapped() if self._step.items is not None else self._worked()
        if gate is None:
            return work
        decided = {said.act.verb for said in self._case.accepted("approve", "reject", key=key)}
        if gate.deadline_s is not None:
            decided.add(gate.default)
        if not decided:
            return set(), "nobody has decided", False
        ends = set(work[0]) if "approve" in decided and self._step.works else set()
        if ("approve" in decided and not self._step.works) or ("reject" in decided and gate.on_reject == "continue"):
            ends.add("completed")
        return ends, f"decided: {' or '.join(sorted(decided))}; {work[1]}", "approve" in decided

    def _worked(self) -> tuple[set[str], str, bool]:
        possible, _ = standings(self._case, self._step, self._step.key)
        return self._ends(possible, self._step.key)

    def _ends(self, possible: set[Standing], key: str) -> tuple[set[str], str, bool]:
        ends = {standing.state for standing in possible} & {"completed", "failed"}
        if self._cut and any(standing.waits for standing in possible):
            ends.add("failed")  # its next attempt will never come
        return ends, _did(self._case.bodies.get(key, ())), True

    def _mapped(self) -> tuple[set[str], str, bool]:
        over = self._step.over
        if over is not None and self._is_unsure(over):
            return {"completed", "failed"}, f"its list may have been looked for before {over} ended", True
        if over is not None and not isinstance((self._source_of(over) or {}).get("items"), list):
            return {"failed"}, f"{over} has no list", False
        return {"completed"}, "its items are settled", True

    def _source_of(self, key: str) -> Any:
        fact = self._case.steps.get(key)
        return fact.result if fact is not None and fact.status == "completed" else None

    # --- items

    def _items(self, fact: StepFact) -> Iterator[str]:
        there = [self._case.steps.get(item_key(fact.key, index)) for index in range(len(self._step.items or ()))]
        if fact.status != "completed" or self._is_decision(fact.result):
            return
        if None in there:
            if self._case.forked_from is None and not self._settled_by_people(fact):
                yield f"{fact.key}: completed without all of its {len(there)} items"
            return
        for item in there:
            if item is not None:
                yield from self._item(item)
        joined = [None if item is None or item.status != "completed" else item.result for item in there]
        if fact.result != joined and not self._settled_by_people(fact):
            yield f"{fact.key}: its list is {fact.result}, its items are {joined}"

    def _item(self, item: StepFact) -> Iterator[str]:
        possible, _ = standings(self._case, self._step, item.key)
        allowed, why, _ = self._ends(possible, item.key)
        if self._case.accepted("settle", key=item.key):
            allowed.add("completed")
        if self._cut and self._case.accepted("retry", key=item.key):
            allowed.add("cancelled")
        if item.status not in allowed:
            yield f"{item.key}: is {item.status}, must be {_either(allowed)}: {why}"

    # --- bodies and results

    def _bodies(self) -> Iterator[str]:
        for key in self._keys_of_bodies():
            _, wrong = standings(self._case, self._step, key)
            yield from wrong
            fact = self._case.steps.get(key)
            bodies = self._case.bodies.get(key, ())
            if fact is not None:
                yield from self._result(fact, bodies)
                yield from self._lost_work(fact, bodies)
                yield from self._lost_reports(fact, bodies)
            for body in bodies:
                yield from self._given(body)
            yield from _checkpoints(bodies)

    def _result(self, fact: StepFact, bodies: Sequence[Body]) -> Iterator[str]:
        """The result of a completed step is that of a body that ran, or what people gave it."""
        joined = self._step.items is not None and fact.key == self._step.key
        if fact.status != "completed" or not self._step.works or joined:
            return
        results = [body.result for body in bodies if body.how == "return"]
        given = [said.result for said in self._case.accepted("settle", key=fact.key)]
        if fact.result not in [*results, *given] and not self._is_decision(fact.result):
            yield f"{fact.key}: completed with {fact.result}, which is of none of its bodies: {_did(bodies)}"

    def _settled_by_people(self, fact: StepFact) -> bool:
        return fact.result in [said.result for said in self._case.accepted("settle", key=fact.key)]

    def _is_decision(self, result: Any) -> bool:
        return (
            self._step.gate is not None
            and isinstance(result, dict)
            and result.get("decision") in ("approved", "rejected")
        )

    def _lost_work(self, fact: StepFact, bodies: Sequence[Body]) -> Iterator[str]:
        """A body that gave its result long before its run was cut short, in which nothing was paused, has completed its step."""
        ended_at = self._case.ended_at
        if not bodies or not self._cut or ended_at is None or fact.status == "completed":
            return
        body = bodies[-1]
        stood = any(moment.at < ended_at - 0.001 for moment in self._case.moments)
        returned = body.how == "return" and body.fate not in ("nul", "outlast") and body.ended_at is not None
        if returned and not stood and ended_at - (body.ended_at or 0) > _HEARD_S:
            yield f"{fact.key}: is {fact.status}, and its body had returned {ended_at - (body.ended_at or 0):.0f} s before the end"

    def _lost_reports(self, fact: StepFact, bodies: Sequence[Body]) -> Iterator[str]:
        """An attempt counts as lost only where a process has died; none has whose body said how it ends."""
        died = sum(body.how in (None, "kill") for body in bodies)
        killed = sum(said.act.mode == "terminate" for said in self._case.accepted("pause"))
        if fact.losses > died + killed:
            yield f"{fact.key}: {fact.losses} of its attempts count as lost with their worker, {died} were: {_did(bodies)}"

    def _given(self, body: Body) -> Iterator[str]:
        """What a body was given are the results of the steps before it, as they are stored."""
        for key, value in body.given.items():
            fact = self._case.steps.get(key)
            stored = None if fact is None or fact.status != "completed" else fact.result
            later = self._step.trigger != "all_completed" or self._corrected
            if value != stored and not (later and value is None):
                yield f"{body.key}: body {body.number} was given {value} for {key}, whose result is {stored}"


def _holds(case: Case, condition: Condition) -> bool | None:
    """Whether a condition held, by how the step that it looks at has ended; None where it cannot be evaluated."""
    fact = case.steps.get(condition.key)
    result = fact.result if fact is not None and fact.status == "completed" else None
    match condition.kind:
        case "always":
            return True
        case "completed":
            return fact is not None and fact.status == "completed"
        case "at_least":
            value = result.get("value") if isinstance(result, dict) else None
            return value is not None and value >= condition.least
        case "approved":
            return isinstance(result, dict) and bool(result.get("approved"))
        case "broken":
            return None
    return False


def _checkpoints(bodies: Sequence[Body]) -> Iterator[str]:
    """A body finds the checkpoint that was stored last; one that was being stored when it ended may be there or not."""
    for place, body in enumerate(bodies):
        if not body.looked:
            continue
        earlier = bodies[:place]
        saved = max((before.number for before in earlier if before.saved), default=None)
        may_be = {saved, *(before.number for before in earlier if before.number > (-1 if saved is None else saved))}
        if body.found not in may_be:
            yield f"{body.key}: body {body.number} found the checkpoint {body.found}, stored was {saved}"


def _either(ends: set[str]) -> str:
    return " or ".join(sorted(ends)) or "on its way"


def _did(bodies: Sequence[Body]) -> str:
    did = ", ".join(f"{body.number} {body.fate}: {body.how or 'no word'}" for body in bodies)
    return f"bodies: {did}" if did else "no body ran"


def _end(case: Case) -> Iterator[str]:
    """How the run itself must have ended."""
    failed = [
        fact.key
        for fact in case.steps.values()
        if fact.status == "failed" and _on_failure(case, fact.key) != "continue"
    ]
    unsettled = [fact.key for fact in case.steps.values() if fact.status not in ("completed", "failed", "skipped")]
    if case.status not in _ENDS:
        yield f"the run is {case.status}"
    if case.status == "completed" and failed:
        yield f"the run completed, and {', '.join(failed)} failed"
    if case.status == "completed" and unsettled:
        yield f"the run completed, and {', '.join(unsettled)} is not settled"
    if case.status == "failed" and not failed:
        yield "the run failed, and no step that fails it"
    if case.status == "cancelled" and not case.accepted("cancel") and not _rejected(case):
        yield "the run was cancelled, and nobody asked for it"
    if case.status != "cancelled" and case.accepted("cancel"):
        yield f"somebody was told that the run is cancelled, and it is {case.status}"
    for key in failed:
        if case.status != "failed" and _on_failure(case, key) == "fail" and _is_final(case, key):
            yield f"{key} failed for good, and the run is {case.status}"


def _on_failure(case: Case, key: str) -> str | None:
    owner = case.plan.owner(key)
    return None if owner is None else owner.on_failure


def _is_final(case: Case, key: str) -> bool:
    """Whether a failed step or item has certainly failed for good."""
    owner = case.plan.owner(key)
    if owner is None or not case.bodies.get(key):
        return owner is not None  # what failed without a body could not even begin
    return all(standing.state == "failed" for standing in standings(case, owner, key)[0])


def _rejected(case: Case) -> bool:
    """Whether a rejection that ends the run was given, or a deadline may have given it."""
    for step in case.plan.steps:
        if step.gate is not None and step.gate.on_reject == "cancel":
            by_deadline = step.gate.deadline_s is not None and step.gate.default == "reject"
            if by_deadline or case.accepted("reject", key=step.key):
                return True
    return False


def _refusals(case: Case) -> Iterator[str]:
    """What people may do with a failed step as long as its run lives is not refused for the state of the run."""
    for said in case.said:
        fact = case.steps.get(said.act.step or "")
        # Of an item whose list is joined already it may be refused.
        if said.act.verb not in ("retry", "settle") or fact is None or "." in fact.key or fact.status != "failed":
            continue
        lives = case.ended_at is None or said.answered_at < case.ended_at
        had_failed = all((body.ended_at or said.asked_at) < said.asked_at for body in case.bodies.get(fact.key, ()))
        if (said.refusal or "").startswith("CommandRefused") and lives and had_failed:
            yield f"{said.by} was not to {said.act.verb} {fact.key}, although the run lived: {said.refusal}"


def _pauses(case: Case) -> Iterator[str]:
    """Nothing pauses by itself, and nothing begins while the run is paused."""
    asked = {said.by for said in case.accepted("pause")}
    stops = any(step.on_failure == "pause" for step in case.plan.steps)
    for moment in case.moments:
        if moment.state != "paused" or moment.by in asked:
            continue
        if not (moment.by == _ENGINE and stops):
            yield f"{moment.key or 'the run'}: was paused by {moment.by}, who had not asked for it"
    pauses = [moment.at for moment in case.moments if moment.key is None and moment.state == "paused"]
    resumes = sorted(said.asked_at for said in case.accepted("resume") if said.act.step is None)
    ends = [] if case.ended_at is None else [case.ended_at]
    for paused_at in pauses:
        until = min((at for at in [*resumes, *ends] if at > paused_at), default=float("inf"))
        for bodies in case.bodies.values():
            for body in bodies:
                if paused_at + NEAR_S < body.began_at < until - 0.01:
                    yield f"{body.key}: body {body.number} began {body.began_at - paused_at:.1f} s after the run was paused"
