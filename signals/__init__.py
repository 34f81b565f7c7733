"""The two directions of news: Celery's task signals into core, core's events onto Redis."""
