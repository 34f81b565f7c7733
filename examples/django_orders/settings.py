"""Django's settings, with Celery's and Interlock's under the prefix `CELERY_`."""

from __future__ import annotations

import os
from pathlib import Path

_FILE = Path(os.environ.get("ORDERS_DATABASE", "orders.db")).resolve()

INSTALLED_APPS = ["examples.django_orders"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _FILE}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
SECRET_KEY = os.environ.get("SECRET_KEY", "only for trying")

# The same database: see `catch_up` in checkout.py for what that is good for.
CELERY_INTERLOCK_DATABASE_URL = f"sqlite:///{_FILE}"
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0")
