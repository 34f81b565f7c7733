"""A state of the small world, and what makes it canonical, so that what cannot be told apart is one state.

- Workers have no names. What is kept of one is whether the body that holds a step, or drains, is still alive.
- Attempts have no numbers. An attempt is the current one, the draining one, or an older one.
- A message of an older attempt, a second copy of a message whose attempt is claimed, and the report of an older attempt
  may come at any time and any number of times: they need no place in the state, and must never change it.
- How often something failed is counted up to the limit of the policy, which asks for no more; nothing is counted of a step
  that has settled for good, nor in a run that has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from interlock.core.model.readiness import DependencyCounts
from interlock.core.model.retry import Tally
from interlock.core.model.states import StepState
from interlock.core.model.transitions import STEP_TABLE, WORKFLOW_TABLE

from .step import Step

if TYPE_CHECKING:
    from .plans import Plan, StepPlan
    from .run import Run

__all__ = ["CURRENT", "DRAINER", "DRAINING", "HOLDER", "OLD", "Situation", "State"]

S = StepState

State: TypeAlias = tuple[Any, ...]
"""A canonical state: what the run's row says, and one tuple for each step."""

# The only ordinals and tokens that a state needs.
OLD: Final = 1
DRAINING: Final = 2
CURRENT: Final = 3
HOLDER: Final = "holder"
DRAINER: Final = "drainer"


class Situation:
    """One state, taken apart so that something may happen in it.

    Attributes:
        run: The run.
        alive: Bodies that hold or drain a step, each by the step's key and its token.
        flying: Keys of the steps the message of whose current attempt is on its way.
        burnt: Keys of the steps the id of whose current attempt was revoked: workers discard its message for ever.
        was: The state of the run before anything happens.
        waiting: Its steps that had not begun then.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.alive: set[tuple[str, str]] = set()
        self.flying: set[str] = set()
        self.burnt: set[str] = set()
        self.publish()
        self._look()

    def _look(self) -> None:
        self.was = self.run.state
        self.waiting = [step for step in self.run.steps.values() if step.state is S.PENDING and not step.attempt]

    @classmethod
    def of(cls, state: State, plan: Plan, rules: type[Run]) -> Self:
        """The situation that `state` describes."""
        world = cls.__new__(cls)
        run = world.run = rules.__new__(rules)
        (run.state, run.open_steps, run.waiting_steps, undone), *rows = state
        run.plan, run.resuming, run.undone = plan, False, list(undone)
        run.forget()
        run.steps, world.alive, world.flying, world.burnt = {}, set(), set(), set()
        for step, row in zip(plan.steps.values(), rows, strict=True):
            run.steps[step.key] = world._step(step, row)
        world._look()
        return world

    def _step(self, plan: StepPlan, row: tuple[Any, ...]) -> Step:
        (
            state,
            begun,
            claim,
            drain,
            counts,
            failures,
            lost,
            retry_due,
            send_due,
            late,
            own_pause,
            request,
            flies,
            burnt,
        ) = row
        if claim == "alive":
            self.alive.add((plan.key, HOLDER))
        if drain is not None and drain[0]:
            self.alive.add((plan.key, DRAINER))
        if flies:
            self.flying.add(plan.key)
        if burnt:
            self.burnt.add(plan.key)
        return Step(
            plan,
            state=state,
            attempt=(0, OLD, CURRENT)[begun],
            task=(0, 0, CURRENT)[begun],
            claim=HOLDER if claim is not None else None,
            drain=DRAINER if drain is not None else None,
            drain_task=DRAINING if drain is not None else 0,
            drain_over=drain is not None and drain[1],
            counts=DependencyCounts(*counts),
            tally=Tally(failures, lost),
            retry_due=retry_due,
            send_due=send_due,
            late=late,
            own_pause=own_pause,
            request=request,
        )

    def frozen(self) -> State:
        """This state, canonical."""
        run = self.run
        ended = WORKFLOW_TABLE.is_terminal(run.state)
        head = (run.state, run.open_steps, run.waiting_steps, () if ended else tuple(run.undone))
        return (head, *[self._row(step, ended=ended) for step in run.steps.values()])

    def _row(self, step: Step, *, ended: bool) -> tuple[Any, ...]:
        key, state, counts = step.plan.key, step.state, step.counts
        over = ended or STEP_TABLE.is_terminal(state)
        sendable = state in (S.PENDING, S.RUNNING) and step.claim is None
        return (
            state,
            2 if step.task else int(step.attempt > 0),
            None if step.claim is None else "alive" if (key, step.claim) in self.alive else "dead",
            None if step.drain is None else ((key, step.drain) in self.alive, step.drain_over),
            (counts.open, counts.unmet, counts.failed) if state is S.PENDING else (0, 0, 0),
            0 if over else min(step.tally.failures, step.plan.policy.max_attempts),
            0 if over else min(step.tally.lost, step.plan.policy.max_lost),
            step.retry_due,
            step.send_due,
            None if over else step.late,
            step.own_pause and state is S.PAUSED,
            step.request,
            sendable and key in self.flying,
            sendable and key in self.burnt,
        )

    def publish(self) -> None:
        """What the commit sends is on its way; without this call it was lost with the process that was to send it."""
        for key, task in self.run.sent:
            if task == self.run.steps[key].task:
                self.flying.add(key)

    def supersede(self) -> None:
        """A message of an attempt that is no longer the current one is an old message."""
        for keys in (self.flying, self.burnt):
            keys -= {key for key in keys if self.run.steps[key].task != CURRENT}
