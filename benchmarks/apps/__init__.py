"""The Celery apps that the workers of a measurement run; they get their addresses from the environment."""
