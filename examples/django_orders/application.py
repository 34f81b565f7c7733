"""The Celery app, as Celery's documentation has it for Django, and `install`."""

from __future__ import annotations

import os

from celery import Celery

from interlock import install

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_orders.settings")

app = Celery("django_orders")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
install(app)
