"""The broker and Redis: whether they are there, and keep what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .facts import Away
from .findings import Found, NotKnown, Severity
from .registry import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .facts import Facts

_NEARLY_FULL: Final = 0.9
_TESTED: Final = ("redis", "amqp")
_LOCAL_ALONE: Final = ("memory", "filesystem")


@check(
    "broker",
    Severity.ERROR,
    holds="the broker answers",
    why="while it is away nothing new starts. What is due stays due, and is sent when it is back; what runs goes on.",
    remedy="start it, or correct `broker_url`",
)
def broker(facts: Facts) -> Iterator[str]:
    """Connect to it."""
    away = facts.broker_or_away
    if isinstance(away, Away) and away.is_fault:
        yield away.reason
    elif isinstance(away, Away):
        raise NotKnown(away.reason)


@check(
    "broker_kind",
    Severity.WARNING,
    holds="the broker is of a kind that Interlock is tested with",
    why="a broker in memory or in a folder reaches no other machine, and one without fan-out (SQS) carries no "
    "remote control: bodies that are to stop are told by the next heartbeat only.",
    remedy="use Redis or RabbitMQ",
)
def broker_kind(facts: Facts) -> Iterator[Found | str]:
    """Look at the transport."""
    transport = facts.broker.transport
    if transport in _LOCAL_ALONE:
        yield Found(f"the broker is `{transport}://`", Severity.ERROR)
    elif transport not in _TESTED:
        yield f"the broker is `{transport}://`"


@check(
    "redis_eviction",
    Severity.ERROR,
    holds="Redis throws nothing away",
    why="when its memory is full, a broker with an `allkeys-…` policy deletes whole queues, bindings and "
    "unacknowledged messages. Steps are sent again after `interlock_redispatch_s`; other tasks and commands "
    "are lost.",
    remedy="set `maxmemory-policy noeviction` for the broker's Redis",
)
def redis_eviction(facts: Facts) -> Iterator[Found | str]:
    """Look at the policy; without a limit of memory it does nothing yet."""
    redis = facts.broker_redis
    if redis.policy == "noeviction":
        return
    limit = "no limit of memory is set yet" if not redis.limit_bytes else f"its memory is {redis.limit_bytes:,} bytes"
    evicts_queues = redis.policy.startswith("allkeys") and redis.limit_bytes
    severity = Severity.ERROR if evicts_queues else Severity.WARNING
    yield Found(f"`maxmemory-policy` of the broker is {redis.policy}, and {limit}", severity)


@check(
    "redis_memory",
    Severity.WARNING,
    holds="Redis has memory left",
    why="a full Redis refuses messages: nothing new starts until there is room.",
    remedy="raise `maxmemory`, or find out what fills it (`redis-cli --bigkeys`)",
)
def redis_memory(facts: Facts) -> Iterator[str]:
    """Compare what is used with the limit."""
    redis = facts.broker_redis
    if redis.limit_bytes and redis.used_bytes > _NEARLY_FULL * redis.limit_bytes:
        yield f"the broker uses {redis.used_bytes:,} of {redis.limit_bytes:,} bytes"


@check(
    "redis_replica",
    Severity.ERROR,
    holds="the broker's Redis can be written to",
    why="a replica refuses messages.",
    remedy="name the master in `broker_url`, or the sentinels (`sentinel://…`)",
)
def redis_replica(facts: Facts) -> Iterator[str]:
    """Ask for its role."""
    if facts.broker_redis.is_replica:
        yield "the broker's Redis is a replica"


@check(
    "events",
    Severity.WARNING,
    holds="the Redis for events answers",
    why="no change is lost: `watch` reads the history instead, later and at a cost; whoever listens to the "
    "channels alone gets nothing.",
    remedy="start it, or correct `interlock_redis_url`",
)
def events(facts: Facts) -> Iterator[str]:
    """Connect to it."""
    away = facts.events_or_away
    if isinstance(away, Away) and away.is_fault:
        yield away.reason
    elif isinstance(away, Away):
        raise NotKnown(away.reason)
