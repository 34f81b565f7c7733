"""The facts about a deployment that checks look at. A part that did not answer is there as `Away`, with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .findings import DoesNotApply, NotKnown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from interlock.core.queries.database_health import Server, Work
    from interlock.core.settings import Settings

__all__ = [
    "THIS_APP",
    "AppFacts",
    "Away",
    "BrokerFacts",
    "Configuration",
    "DatabaseFacts",
    "EngineFacts",
    "Facts",
    "RedisFacts",
    "WorkerFacts",
    "listed",
]

T = TypeVar("T")

THIS_APP: Final = "this app"
"""Where the settings of the app that was named hold."""


@dataclass(frozen=True, slots=True)
class Away:
    """A part that is not there, is not configured, or did not answer in time.

    Attributes:
        reason: Which, and why, for people; without passwords.
        is_fault: Whether it should be there; False where none is configured, or there is no such part.
    """

    reason: str
    is_fault: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Celery's settings as one process has them.

    Attributes:
        where: `THIS_APP`, or the worker's name.
        celery: Every setting, defaults included; secrets are masked.
        interlock: Interlock's; None where they do not fit.
    """

    where: str
    celery: Mapping[str, Any]
    interlock: Settings | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AppFacts:
    """The Celery app that was named.

    Attributes:
        is_installed: Whether `install(app)` was called.
        import_path: `module:attribute` by which an engine process finds it; None where there is none.
        guards_fault: Why the guards file cannot be used; None where it can, or there is none.
        late_tasks: Names of its tasks that are acknowledged late.
        requeued_tasks: Those of them whose message is requeued when their process dies.
    """

    is_installed: bool
    import_path: str | None
    guards_fault: str | None = None
    late_tasks: tuple[str, ...] = ()
    requeued_tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseFacts:
    """The workflows' database.

    Attributes:
        server: Its server.
        revision_fault: Why its tables cannot be used; None where they can.
        newer: Its revision, where that is newer than this version.
        path: The file, of SQLite; None in memory.
        is_relative: Whether the URL names the file relative to whichever folder a process starts in.
        filesystem: Type of the file system that the file is on; empty where not known.
    """

    server: Server
    revision_fault: str | None = None
    newer: str | None = None
    path: str | None = None
    is_relative: bool = False
    filesystem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFacts:
    """Celery's broker.

    Attributes:
        transport: `redis`, `amqp`, …
        is_local: Whether its address can only be reached from this machine.
        lengths: Messages that wait, by queue.
        consumers: For each queue, the workers that consume it.
    """

    transport: str
    is_local: bool
    lengths: Mapping[str, int] = field(default_factory=dict)
    consumers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """A Redis server, as INFO tells.

    Attributes:
        policy: What it does when its memory is full.
        limit_bytes: Its memory's limit; 0 for none.
        used_bytes: What it uses.
        is_replica: Whether it follows another server.
    """

    policy: str
    limit_bytes: int
    used_bytes: int
    is_replica: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """A worker that answered.

    Attributes:
        name: `celery@host`.
        pool: Module of its pool, such as `celery.concurrency.prefork`; empty where it did not say.
        processes: How many bodies it runs at once.
        tasks: Names of the tasks that it knows; None where it did not say.
        has_interlock: Whether its tasks are wrapped, as `install(app)` does it.
        skew_s: How far its clock is before this machine's; None where it did not say.
    """

    name: str
    pool: str = ""
    processes: int = 0
    tasks: frozenset[str] | None = None
    has_interlock: bool = True
    skew_s: float | None = None

    @property
    def host(self) -> str:
        """The host's part of its name."""
        return self.name.rpartition("@")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """Whether an engine process answers on the control queue.

    Attributes:
        fault: Why there was no good answer; None where there was one.
    """

    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A deployment as far as it is known. The properties give a part or raise `NotKnown`.

    Attributes:
        settings: Interlock's, as this process has them.
        hostname: This machine's.
        app: The app, where one was named.
        configurations: Celery's settings, of the app and of each worker that told its own.
        database_or_away: The database.
        work_or_away: What is to be done.
        broker_or_away: The broker.
        broker_redis_or_away: The broker as a Redis server, where it is one.
        events_or_away: The Redis that carries events.
        workers_or_away: The workers that answered.
        engine_or_away: The engine processes.
        queue_of: Where the app routes a task; None where it cannot say.
    """

    settings: Settings
    hostname: str = ""
    app: AppFacts | None = None
    configurations: tuple[Configuration, ...] = ()
    database_or_away: DatabaseFacts | Away
    work_or_away: Work | Away
    broker_or_away: BrokerFacts | Away
    broker_redis_or_away: RedisFacts | Away
    events_or_away: RedisFacts | Away
    workers_or_away: tuple[WorkerFacts, ...] | Away
    engine_or_away: EngineFacts | Away
    queue_of: Mapping[str, str] = field(default_factory=dict)

    @property
    def known_app(self) -> AppFacts:
        """The app."""
        if self.app is None:
            message = "no Celery app was named: give it with -A"
            raise NotKnown(message)
        return self.app

    @property
    def known_configurations(self) -> tuple[Configuration, ...]:
        """The settings of the app and of the workers."""
        if not self.configurations:
            message = "no Celery app was named with -A, and no worker told its settings"
            raise NotKnown(message)
        return self.configurations

    @property
    def database(self) -> DatabaseFacts:
        """The database."""
        return _known(self.database_or_away, "the database did not answer")

    @property
    def work(self) -> Work:
        """What is to be done."""
        return _known(self.work_or_away)

    @property
    def broker(self) -> BrokerFacts:
        """The broker."""
        return _known(self.broker_or_away, "the broker did not answer")

    @property
    def broker_redis(self) -> RedisFacts:
        """The broker's Redis server; `DoesNotApply` where the broker is another one."""
        away = self.broker_redis_or_away
        if isinstance(away, Away) and not away.is_fault:
            raise DoesNotApply
        return _known(away)

    @property
    def events(self) -> RedisFacts:
        """The Redis for events."""
        return _known(self.events_or_away)

    @property
    def workers(self) -> tuple[WorkerFacts, ...]:
        """The workers that answered; may be none."""
        return _known(self.workers_or_away)

    @property
    def engine(self) -> EngineFacts:
        """The engine processes."""
        return _known(self.engine_or_away)

    def where(self, holds: Callable[[Mapping[str, Any]], object]) -> str:
        """The processes in whose Celery settings `holds` is true, as words; empty where in none."""
        return listed([each.where for each in self.known_configurations if holds(each.celery)])


def _known(part: T | Away, in_short: str | None = None) -> T:
    if isinstance(part, Away):
        raise NotKnown(in_short if in_short is not None and part.is_fault else part.reason)
    return part


def listed(names: Sequence[str], most: int = 3) -> str:
    """Some names as words, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
