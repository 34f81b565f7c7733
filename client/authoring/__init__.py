"""Writing a workflow: Python, YAML and Celery's canvas in; diagrams out."""
