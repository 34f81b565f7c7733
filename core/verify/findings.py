"""The kinds of findings of the history checker, with what each means and what to do about it.

docs/verify.md is generated from `KINDS`; a finding of a kind that is not there cannot be made.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KINDS", "Finding", "Kind", "Verification"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding.

    Attributes:
        invariant: Which of the nine invariants (ARCHITECTURE.md) it breaks.
        meaning: What is wrong.
        remedy: What to do.
    """

    invariant: int
    meaning: str
    remedy: str


_FOREIGN_WRITE: Final = "Find who writes to these tables beside Interlock (see below), and take the right away."
_RESTORE: Final = f"{_FOREIGN_WRITE} The history cannot be made good by hand: what is missing is in a backup, or gone."
_RESUME: Final = "Pause and resume the run: a resume counts everything afresh and starts what waits."
_RERUN: Final = "Cancel the run, or leave it as it ended, and `interlock rerun` it: what completed is taken over."
_CANCEL: Final = (
    "Look at the run with `interlock explain`; if nothing moves it, `interlock cancel` and `interlock rerun` it."
)

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        # the history by itself
        "seq_gap": Kind(2, "A number of the history is missing.", _RESTORE),
        "seq_counter": Kind(2, "The run counts more, or fewer, rows of history than there are.", _RESTORE),
        "out_of_order": Kind(
            2,
            "The row's id or time is before that of the row with the number before it.",
            f"Where only times go back, the clock of the database's machine was set back. Otherwise: {_RESTORE}",
        ),
        "illegal_edge": Kind(1, "A move that the tables do not have.", _RESTORE),
        "unknown_state": Kind(1, "A state that does not exist.", _RESTORE),
        "broken_chain": Kind(1, "A move that does not begin where the one before it ended.", _RESTORE),
        "unknown_entity": Kind(1, "History of a step that the run does not have.", _RESTORE),
        "orphan": Kind(
            2,
            "Rows of a run that does not exist.",
            "Normal for a moment while a run is archived (its row goes first, then its history). Otherwise delete them.",
        ),
        "after_the_end": Kind(3, "Something moved after the workflow had ended.", _RESTORE),
        "started_while_not_executing": Kind(
            4, "A step began to run while its workflow did not execute.", f"{_FOREIGN_WRITE} Its body may have run."
        ),
        "attempt_goes_back": Kind(5, "A step's attempts do not count upwards.", _RESTORE),
        # the history against what is there
        "status_mismatch": Kind(
            1,
            "The state of a run or a step is not the one in which its history ends.",
            f"{_FOREIGN_WRITE} `status` is moved by Interlock alone: by its verbs, or by `StateMachine`.",
        ),
        "foreign_session": Kind(9, "Rows of a run that belong to another session.", _FOREIGN_WRITE),
        "foreign_fork": Kind(9, "The run took over results of a run of another session.", _FOREIGN_WRITE),
        "foreign_command": Kind(9, "A command of one session was carried out on a run of another.", _FOREIGN_WRITE),
        "foreign_dependency": Kind(
            7, "A step waits for a step of another run, or for none, or is an item of one.", _CANCEL
        ),
        "dependency_cycle": Kind(7, "Steps wait for each other, in a circle.", _CANCEL),
        "duplicate_key": Kind(
            2,
            "Two runs of a session have the same idempotency key.",
            "The unique index is missing: `interlock db check`. One order was probably carried out twice.",
        ),
        # how runs end
        "unsettled": Kind(3, "The workflow has ended, and a step is not settled.", _RERUN),
        "uncounted_failure": Kind(3, "The workflow has completed, and a step has failed that counts.", _RERUN),
        "end_time": Kind(3, "Ended without a time of the end, or a time of the end without an end.", _FOREIGN_WRITE),
        # results
        "result_missing": Kind(5, "An attempt reported a result, and it is not there.", _RERUN),
        "stray_result": Kind(5, "A step has a result and has not completed.", _FOREIGN_WRITE),
        "foreign_result": Kind(5, "The result was recorded by an attempt that is not the step's.", _RERUN),
        "late_report": Kind(
            5,
            "What was reported or asked while the workflow was paused was not done at the resume.",
            "`interlock retry` or `interlock settle` the step if it failed, else pause and resume the workflow.",
        ),
        # attempts and timers
        "stray_claim": Kind(
            4,
            "A claim or a lease without the other, without an attempt, or of a step that does not run.",
            _RESUME,
        ),
        "stray_timer": Kind(7, "A timer of something that is settled, or that has no such thing to wait for.", _RESUME),
        "over_the_limit": Kind(4, "More steps are in work than `max_parallel` lets.", _FOREIGN_WRITE),
        # cascades
        "half_paused": Kind(6, "The workflow is paused, and a step runs.", "`interlock resume` and pause it again."),
        "not_waiting": Kind(
            7, "The workflow waits for an approval, and no step does, or others can move.", "Approve, reject or cancel."
        ),
        # counters
        "open_steps": Kind(
            3, "The run's count of steps that are not settled is wrong: it would end too early or never.", _RESUME
        ),
        "waiting_steps": Kind(7, "The run's count of steps that wait for a person is wrong.", _CANCEL),
        "dependency_counts": Kind(
            7, "A step's counts of what it waits for are wrong: it would start too early or never.", _RESUME
        ),
        "wrong_start": Kind(4, "A step has started though its dependencies did not end as its trigger needs.", _RERUN),
        "wrong_skip": Kind(4, "A step was skipped though its dependencies ended as its trigger needs.", _RERUN),
        # people and the rest that may be waited for
        "requests": Kind(
            7,
            "A step that waits for an approval has not exactly one request, another step has one, or a decision is half made.",
            _CANCEL,
        ),
        "forgotten": Kind(7, "Not settled, with no lease, timer, dependency or person to wait for.", _RESUME),
    }
)
"""Word for programs → what it is. In the order of the table in docs/verify.md."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be.

    Attributes:
        kind: A word for programs: a key of `KINDS`.
        run_id: The run.
        entity: `workflow`, or the step's key.
        text: What was found, for people.
        seq: The history row where it shows, if there is one.
    """

    kind: str
    run_id: str
    entity: str
    text: str
    seq: int | None = None

    def __post_init__(self) -> None:
        """Refuse a kind that is not documented."""
        if self.kind not in KINDS:
            raise ValueError(self.kind)


@dataclass(slots=True)
class Verification:
    """What was looked at. It is complete once the findings have been read to their end.

    Attributes:
        runs: Runs checked.
        steps: Steps checked.
        rows: Rows of history replayed.
        without_history: Entities that have none, or none of their beginning: older rows, reported and not failed.
        findings: How many there were, by kind.
    """

    runs: int = 0
    steps: int = 0
    rows: int = 0
    without_history: int = 0
    findings: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings
