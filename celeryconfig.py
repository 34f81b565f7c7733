"""Celery's settings for production, from the environment.

Celery finds this file by its name in the folder where `celery -A interlock.worker worker` starts.
A variable that is not set leaves the default in place: `interlock dev` brings its own servers.

    INTERLOCK_DATABASE_URL   postgresql+psycopg://…  workflows and their history
    INTERLOCK_BROKER_URL     redis://… or amqp://…   tasks and control commands
    INTERLOCK_REDIS_URL      redis://…               events (the broker's Redis will do)
    INTERLOCK_IMPORTS        shop.tasks,shop.more    modules that define your tasks
"""

from __future__ import annotations

import os


def _from_environment() -> dict[str, object]:
    variables = {
        "interlock_database_url": "INTERLOCK_DATABASE_URL",
        "interlock_redis_url": "INTERLOCK_REDIS_URL",
        "broker_url": "INTERLOCK_BROKER_URL",
    }
    settings: dict[str, object] = {
        setting: os.environ[name] for setting, name in variables.items() if os.environ.get(name)
    }
    modules = os.environ.get("INTERLOCK_IMPORTS", "").replace(",", " ").split()
    if modules:
        settings["imports"] = modules
    if os.environ.get("INTERLOCK_BROKER_URL", "").startswith("amqp"):
        # RabbitMQ confirms each message; else one sent to a broker that dies is lost in silence.
        settings["broker_transport_options"] = {"confirm_publish": True}
    return settings


globals().update(_from_environment())

# JSON and nothing else, in and out: a pickle is code.
task_serializer = "json"
result_serializer = "json"
event_serializer = "json"
accept_content = ["json"]
result_accept_content = ["json"]

# Results live in Interlock's tables. A result backend would store each a second time, and its
# subscriptions leak on Redis.
result_backend = None
task_ignore_result = True
task_store_errors_even_if_ignored = False

# A message is a hint: the claim in the database decides who runs a step, and the sweeper sends
# again what was lost. So messages are acknowledged early; a task that sets `acks_late = True` for
# itself keeps it.
task_acks_late = False
task_reject_on_worker_lost = False

# Deduplication skips a redelivered task on a path that sends no signal, and Interlock would never
# hear of it. Duplicates are refused by the claim.
worker_deduplicate_successful_tasks = False

# When the broker goes away, running steps go on: their results go to the database. Celery would
# otherwise terminate tasks with late acknowledgement.
worker_cancel_long_running_tasks_on_connection_loss = False

# A child runs one message and MAIN holds one more for it: the least with early acknowledgement, so
# that few steps wait behind a busy worker while another one is idle.
worker_prefetch_multiplier = 1

# A cold shutdown (SIGQUIT, or Ctrl-C twice) first gives steps this long to end.
worker_soft_shutdown_timeout = 10.0  # seconds

# A broker that is not there yet, or not now, is waited for.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
task_publish_retry = True
task_default_delivery_mode = "persistent"

# Celery's own monitoring events cost a message per change; Interlock publishes its own.
worker_send_task_events = False
task_send_sent_event = False

enable_utc = True
timezone = "UTC"
