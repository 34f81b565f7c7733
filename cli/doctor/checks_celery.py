"""Celery's settings, of the app and of each worker that told its own: what is right for plain tasks may be wrong for steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .facts import listed
from .findings import DoesNotApply, Found, Severity
from .registry import check

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .facts import Facts

_HOUR_S: Final = 3600.0
_RABBITS_PATIENCE_S: Final = 1800.0  # consumer_timeout, RabbitMQ's default
_NO_BACKEND: Final = (None, "", "disabled", "disabled://")


def _has_backend(settings: Mapping[str, Any]) -> bool:
    return settings.get("result_backend") not in _NO_BACKEND


def _require_broker(facts: Facts, transport: str) -> None:
    if facts.broker.transport != transport:
        raise DoesNotApply


def _is_late(facts: Facts, settings: Mapping[str, Any]) -> bool:
    """Whether some messages are acknowledged when their body has ended: all, or those of single tasks."""
    return bool(settings.get("task_acks_late") or (facts.app is not None and facts.app.late_tasks))


def _options(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    options = settings.get("broker_transport_options")
    return options if isinstance(options, dict) else {}


@check(
    "result_backend",
    Severity.WARNING,
    holds="no result backend is in the way of the steps",
    why="the messages of steps say that their result is not to be stored: it is kept with the step. An "
    "`AsyncResult` of one is never ready, and on Redis each leaves a subscription behind; errors stored all "
    "the same are read by nobody and fill the backend.",
    remedy="set `task_ignore_result = True`, or `result_backend = None` where no other task needs one, and leave "
    "`task_store_errors_even_if_ignored` off; wait for steps with `Client.wait` and `Client.result`",
)
def result_backend(facts: Facts) -> Iterator[str]:
    """Look for a backend that stores results by default, or errors always."""
    if where := facts.where(lambda settings: _has_backend(settings) and not settings.get("task_ignore_result")):
        yield f"a result backend is on, and `task_ignore_result` is off ({where})"
    if where := facts.where(
        lambda settings: _has_backend(settings) and settings.get("task_store_errors_even_if_ignored")
    ):
        yield f"`task_store_errors_even_if_ignored` is on ({where})"


@check(
    "deduplication",
    Severity.ERROR,
    holds="`worker_deduplicate_successful_tasks` is off",
    why="with late acknowledgement, Celery then answers a redelivered message from what it remembers, on a path "
    "that sends no signal: whether the step was recorded is not asked, and one that was not waits for its "
    "lease to end.",
    remedy="set `worker_deduplicate_successful_tasks = False`; duplicates are refused by the claim in the database",
)
def deduplication(facts: Facts) -> Iterator[Found]:
    """Look at the setting; without late acknowledgement it does nothing yet."""
    if where := facts.where(lambda settings: settings.get("worker_deduplicate_successful_tasks")):
        late = facts.where(lambda settings: _is_late(facts, settings))
        severity = Severity.ERROR if late else Severity.WARNING
        yield Found(f"`worker_deduplicate_successful_tasks` is on ({where})", severity)


@check(
    "always_eager",
    Severity.ERROR,
    holds="`task_always_eager` is off",
    why="tasks that a step's body sends with `delay` run inside that body: what it sends is not queued, and is "
    "lost with it. Steps themselves are sent all the same.",
    remedy="set `task_always_eager = False` outside of tests",
)
def always_eager(facts: Facts) -> Iterator[str]:
    """Look at the setting."""
    if where := facts.where(lambda settings: settings.get("task_always_eager")):
        yield f"`task_always_eager` is on ({where})"


@check(
    "task_protocol",
    Severity.WARNING,
    holds="`task_protocol` is 2",
    why="a message of protocol 1 cannot say that its result is not to be stored, nor hide the arguments of a step "
    "from Celery's log; and each costs several times as much to send.",
    remedy="remove `task_protocol`",
)
def task_protocol(facts: Facts) -> Iterator[str]:
    """Look at the setting."""
    if where := facts.where(lambda settings: settings.get("task_protocol", 2) != 2):  # noqa: PLR2004 - its name
        yield f"`task_protocol` is 1 ({where})"


@check(
    "json_accepted",
    Severity.ERROR,
    holds="JSON is accepted",
    why="the messages of steps are JSON: a worker that does not accept it drops each of them unread.",
    remedy="put 'json' into `accept_content`",
)
def json_accepted(facts: Facts) -> Iterator[str]:
    """Look for JSON among what is accepted."""
    if where := facts.where(lambda settings: not _accepts(settings, "json", "application/json")):
        yield f"`accept_content` has no 'json' ({where})"


@check(
    "pickle_accepted",
    Severity.WARNING,
    holds="no pickles are accepted",
    why="a pickle is code: whoever can write to the broker can then run anything in the workers, with their "
    "database at hand.",
    remedy="set `accept_content = ['json']`",
)
def pickle_accepted(facts: Facts) -> Iterator[str]:
    """Look for pickle among what is accepted."""
    if where := facts.where(lambda settings: _accepts(settings, "pickle", "application/x-python-serialize")):
        yield f"`accept_content` has 'pickle' ({where})"


@check(
    "late_rejection",
    Severity.WARNING,
    holds="no message is requeued when its process dies",
    why="with `task_acks_late` and `task_reject_on_worker_lost` Celery sends no signal when a pool process dies, "
    "and requeues the message, which finds the dead attempt's claim: the step waits for its lease to end, "
    "where it could have been tried again at once.",
    remedy="set `task_reject_on_worker_lost = False`; the lease gives the step of a dead worker to another one anyway",
)
def late_rejection(facts: Facts) -> Iterator[str]:
    """Look for the two settings together, for all tasks or on single ones."""
    if where := facts.where(
        lambda settings: settings.get("task_acks_late") and settings.get("task_reject_on_worker_lost")
    ):
        yield f"`task_acks_late` and `task_reject_on_worker_lost` are on ({where})"
    elif facts.app is not None and facts.app.requeued_tasks:
        yield f"`acks_late` and `reject_on_worker_lost` are on for {listed(facts.app.requeued_tasks)}"


@check(
    "connection_loss",
    Severity.WARNING,
    holds="running bodies survive the loss of the broker",
    why="Celery ends bodies with late acknowledgement when the connection to the broker is lost; their work is "
    "done again.",
    remedy="set `worker_cancel_long_running_tasks_on_connection_loss = False`: a step's result goes to the database",
)
def connection_loss(facts: Facts) -> Iterator[str]:
    """Look for it together with late acknowledgement, without which it does nothing."""
    if where := facts.where(
        lambda settings: (
            settings.get("worker_cancel_long_running_tasks_on_connection_loss") and _is_late(facts, settings)
        )
    ):
        yield f"`worker_cancel_long_running_tasks_on_connection_loss` is on, with late acknowledgement ({where})"


@check(
    "prefetch",
    Severity.WARNING,
    holds="a worker takes no more messages than it can soon begin",
    why="what a busy worker has fetched waits behind its long steps while others are idle, is sent again "
    "meanwhile, and is gone from the broker if the worker dies; then it waits for its repetition.",
    remedy="set `worker_prefetch_multiplier = 1`",
)
def prefetch(facts: Facts) -> Iterator[str]:
    """Look at the multiplier; 0 is without a limit."""
    if where := facts.where(lambda settings: settings.get("worker_prefetch_multiplier", 4) != 1):
        yield f"`worker_prefetch_multiplier` is not 1 ({where})"


@check(
    "remote_control",
    Severity.WARNING,
    holds="workers answer remote control",
    why="bodies that are to stop are told by the next heartbeat only, and neither `interlock explain` nor this "
    "command can ask such a worker anything.",
    remedy="set `worker_enable_remote_control = True`",
)
def remote_control(facts: Facts) -> Iterator[str]:
    """Look at the setting."""
    if where := facts.where(lambda settings: settings.get("worker_enable_remote_control") is False):
        yield f"`worker_enable_remote_control` is off ({where})"


@check(
    "visibility_timeout",
    Severity.WARNING,
    holds="Redis gives no message back while it is worked on",
    why="after `visibility_timeout` Redis hands a message out again that was fetched and not acknowledged: one of "
    "a long task with late acknowledgement, or one that waits behind a long step. Tasks that are no steps run twice; "
    "of steps (only with `interlock_broker_copies`) the claim refuses the second one, at the price of the traffic.",
    remedy="leave `visibility_timeout` in `broker_transport_options` at an hour, or longer than the longest task",
)
def visibility_timeout(facts: Facts) -> Iterator[Found | str]:
    """Compare it with the longest step and the lease; and look for keys that are the control queue's."""
    _require_broker(facts, "redis")
    keys = f"{facts.settings.channel_prefix}.control."
    if where := facts.where(lambda settings: str(_options(settings).get("unacked_key", "")).startswith(keys)):
        remedy = "remove `unacked_key` from `broker_transport_options`: under the control queue's, all is given back after 30 s"
        yield Found(f"`unacked_key` is the control queue's ({where})", Severity.ERROR, remedy)
    needed_s, what = _longest(facts)
    if where := facts.where(lambda settings: _visibility_s(settings) < needed_s):
        yield f"`visibility_timeout` is shorter than {needed_s:g} s, and {what} ({where})"


@check(
    "consumer_timeout",
    Severity.WARNING,
    holds="RabbitMQ does not wait for acknowledgements of long steps",
    why="RabbitMQ closes the channel of a consumer that has not acknowledged a message for `consumer_timeout` (30 "
    "minutes by default), and everything that it had fetched is delivered again.",
    remedy="leave `task_acks_late` off for steps, or raise `consumer_timeout` in rabbitmq.conf above the longest step",
)
def consumer_timeout(facts: Facts) -> Iterator[str]:
    """Look for late acknowledgement of steps that may be long."""
    _require_broker(facts, "amqp")
    needed, what = _longest(facts, unlimited_s=2 * _RABBITS_PATIENCE_S)
    if needed <= _RABBITS_PATIENCE_S:
        return
    if where := facts.where(lambda settings: _is_late(facts, settings)):
        yield f"late acknowledgement is on, and {what} ({where})"


@check(
    "publisher_confirms",
    Severity.WARNING,
    holds="RabbitMQ confirms what is sent to it",
    why="without confirmation a message is lost in silence when the broker dies with it in its hands; the step "
    "waits for its repetition (`interlock_redispatch_s`), and a command for its sender.",
    remedy="set `broker_transport_options = {'confirm_publish': True}`",
)
def publisher_confirms(facts: Facts) -> Iterator[str]:
    """Look at the transport options of an AMQP broker."""
    _require_broker(facts, "amqp")
    if where := facts.where(lambda settings: not _options(settings).get("confirm_publish")):
        yield f"`confirm_publish` is off ({where})"


def _visibility_s(settings: Mapping[str, Any]) -> float:
    return float(_options(settings).get("visibility_timeout") or _HOUR_S)


def _accepts(settings: Mapping[str, Any], *names: str) -> bool:
    accepted = settings.get("accept_content")
    return accepted is not None and any(name in accepted for name in names)


def _longest(facts: Facts, unlimited_s: float = 0.0) -> tuple[float, str]:
    """The longest time that a step may take as far as is known, and how that is said."""
    limits = [backlog.timeout_s for backlog in facts.work.backlogs]
    known = [limit for limit in limits if limit is not None]
    longest = max(known, default=0.0)
    if unlimited_s and len(known) < len(limits):
        return unlimited_s, "steps that are planned have no time limit"
    if longest > facts.settings.lease_s:
        return longest, f"a step that is planned may take {longest:g} s"
    return facts.settings.lease_s, f"a lease is {facts.settings.lease_s:g} s"
