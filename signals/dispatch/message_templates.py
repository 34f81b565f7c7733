"""Builds a step's Celery message from a template: Celery builds the first of a kind, later ones differ in ids and arguments.

`send_task` costs ten times what putting its message on the broker does, and a process sends the same kinds over and over. So the
first message of a kind goes through `send_task`, which knows routes, queues and options, and what it hands to kombu is the template
of the next ones. Where something has to be asked about every message (a router that is code, a receiver of Celery's publish
signals, an expiry), every message goes through `send_task`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery import signals
from celery.app.routes import MapRoute

from interlock.core.json_values import compact_json
from interlock.core.redaction import HIDDEN
from interlock.signals.step_header import HEADER, header_of

from .redis_template import RedisMessage, capture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery import Celery
    from kombu import Producer

    from interlock.core.events import Dispatch
    from interlock.core.settings import Settings
    from interlock.signals.events.redis_pipeline import Command

    Maker = Callable[[list[Any], dict[str, Any]], Command]

__all__ = ["StepMessages", "message_options"]

# One reconnection for a pooled connection that has gone stale; what fails then waits for the sweeper.
_RETRY_POLICY: Final = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}
_PUBLISH_SIGNALS: Final = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)
_TEMPLATES: Final = 1_000  # kinds of message; plans may name any number of queues and limits


@dataclass(slots=True)
class _Template:
    """What Celery gave to `Producer.publish` for a message of this kind.

    Attributes:
        options: Of `publish`, without those that differ.
        headers: As far as they do not differ.
        embed: The third part of a message's body.
        redis: What kombu makes of it for Redis; None where that is not one LPUSH, and before somebody has asked.
        asked: Whether somebody has.
    """

    options: dict[str, Any]
    headers: dict[str, Any]
    embed: dict[str, Any]
    redis: RedisMessage | None = None
    asked: bool = False


class StepMessages:
    """Sends the messages of one app's steps."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._templates: dict[tuple[object, ...], _Template] = {}

    def send(self, dispatch: Dispatch, args: list[Any], kwargs: dict[str, Any], producer: Producer) -> None:
        """Put the attempt's message on the broker.

        Raises:
            Exception: The broker's, kombu's, or that of a router of the user's.
        """
        kind = _kind(dispatch)
        template = self._templates.get(kind)
        if template is None or self._is_watched():
            self._send_task(kind, dispatch, args, kwargs, producer)
            return
        _publish(template, dispatch, args, kwargs, producer)

    def for_redis(self, dispatch: Dispatch, address: Mapping[str, Any]) -> Maker | None:
        """What makes the attempt's message as a command to the Redis at `address`.

        Returns:
            None where the broker is another, or kombu has to send the message.

        Raises:
            Exception: The broker's, or kombu's.
        """
        template = self._templates.get(_kind(dispatch))
        if template is None or self._is_watched():
            return None
        if not template.asked:
            with self._app.producer_or_acquire() as producer:
                template.redis = capture(producer, lambda: _publish(template, dispatch, [], {}, producer))
            template.asked = True
        message = template.redis
        if message is None or not message.is_for(address):
            return None
        return lambda args, kwargs: message.command(
            _headers(template, dispatch), _body(template, args, kwargs), dispatch.task_id
        )

    def _send_task(
        self, kind: tuple[object, ...], dispatch: Dispatch, args: list[Any], kwargs: dict[str, Any], producer: Producer
    ) -> None:
        settings = self._settings
        recorder: Any = _Recorder(producer)
        self._app.send_task(
            dispatch.task,
            args=args,
            kwargs=kwargs,
            producer=recorder,
            retry=True,
            retry_policy=_RETRY_POLICY,
            **message_options(dispatch, grace_s=settings.cancel_grace_s, show_payloads=settings.show_payloads),
        )
        if recorder.template is not None and not settings.show_payloads and len(self._templates) < _TEMPLATES:
            self._templates[kind] = recorder.template

    def _is_watched(self) -> bool:
        """Whether somebody is to be asked or told about every single message."""
        app: Any = self._app
        return (
            any(signal.receivers for signal in _PUBLISH_SIGNALS)
            or bool(app.conf.task_send_sent_event)
            or not all(isinstance(route, MapRoute) for route in app.amqp.router.routes)
        )


def _publish(
    template: _Template, dispatch: Dispatch, args: list[Any], kwargs: dict[str, Any], producer: Producer
) -> None:
    producer.publish(
        _body(template, args, kwargs),
        **template.options,
        content_type="application/json",
        content_encoding="utf-8",
        headers=_headers(template, dispatch),
        correlation_id=dispatch.task_id,
    )


def _headers(template: _Template, dispatch: Dispatch) -> dict[str, Any]:
    return {**template.headers, **_identity(dispatch), HEADER: header_of(dispatch)}


def _body(template: _Template, args: list[Any], kwargs: dict[str, Any]) -> str:
    # Plain JSON by now, so kombu's encoder, which looks for dates and ids, is not needed.
    return compact_json((args, kwargs, template.embed))


class _Recorder:
    """Stands for a producer in `send_task`: passes the message on, and keeps what it was given."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.connection = producer.connection
        self.template: _Template | None = None

    def publish(self, body: Any, **options: Any) -> Any:
        """Pass on, and keep what can be copied."""
        headers = dict(options.get("headers") or {})
        if isinstance(body, tuple) and headers.get("expires") is None and headers.get("eta") is None:
            varying = ("headers", "correlation_id", "serializer")
            self.template = _Template(
                options={name: value for name, value in options.items() if name not in varying},
                headers=headers,
                embed=dict(body[2]),
            )
        return self._producer.publish(body, **options)


def message_options(dispatch: Dispatch, *, grace_s: float, show_payloads: bool = False) -> dict[str, Any]:
    """The options of `send_task` for an attempt: identity, limits, routing as the plan says.

    A body over its time limit is told softly, and has `grace_s` to end before its process is ended. Without `show_payloads`
    the headers do not repeat the arguments: Celery puts them there, shortened, for logs and monitors.
    """
    spec = dispatch.spec
    options: dict[str, Any] = {} if show_payloads else {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN}
    options |= spec.get("options", {})
    options["headers"] = {**options.get("headers", {}), HEADER: header_of(dispatch)}
    for name in ("queue", "priority"):
        if spec.get(name) is not None:
            options[name] = spec[name]
    if spec.get("timeout_s") is not None:
        options["soft_time_limit"] = spec["timeout_s"]
        options["time_limit"] = spec["timeout_s"] + grace_s
    return {
        **options,
        **_attempt(dispatch),
        # Results are kept with the step; a result backend would only collect garbage.
        "ignore_result": True,
        "add_to_parent": False,
        "serializer": "json",
        "countdown": None,
        "eta": None,
    }


def _attempt(dispatch: Dispatch) -> dict[str, Any]:
    """What differs between two messages of one kind, as `send_task` calls it."""
    return {
        "task_id": dispatch.task_id,
        "root_id": dispatch.run_id,
        "parent_id": dispatch.run_id,
        "retries": dispatch.celery_retries,
    }


def _identity(dispatch: Dispatch) -> dict[str, Any]:
    """The same as a message's headers call it."""
    named = _attempt(dispatch)
    named["id"] = named.pop("task_id")
    return named


def _kind(dispatch: Dispatch) -> tuple[object, ...]:
    """What two messages have in common that differ in their ids and arguments alone."""
    spec = dispatch.spec
    options = json.dumps(spec["options"], sort_keys=True) if spec.get("options") else None
    return dispatch.task, spec.get("queue"), spec.get("priority"), spec.get("timeout_s"), options
