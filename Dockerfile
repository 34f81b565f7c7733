# The image of docker-compose.yml: workers, the migration job and the command line.
# A project of your own starts from it: FROM this image, copy your tasks to /app, set INTERLOCK_IMPORTS.

FROM python:3.12-slim AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --wheel-dir /wheels ".[postgres]"

FROM python:3.12-slim
ENV PYTHONUNBUFFERED=1
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links=/wheels "interlock-celery[postgres]" \
    && useradd --system --no-create-home --shell /usr/sbin/nologin interlock
WORKDIR /app
COPY celeryconfig.py .
USER interlock
CMD ["celery", "-A", "interlock.worker", "worker", "--loglevel=INFO"]
