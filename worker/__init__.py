"""What runs inside a Celery worker: the step mixin, dispatch, leases, the engine process."""
