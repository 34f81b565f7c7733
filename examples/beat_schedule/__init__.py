"""A schedule: Celery beat enqueues a workflow a day, once, however often the tick comes."""
