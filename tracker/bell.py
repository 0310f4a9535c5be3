"""The doorbell: Celery's configuration, and ringing a queue by name.

Postgres is the diary. A message carries ids at most, is never the only trace of work, and may be lost, doubled or late without
harm; so ringing never raises and never waits long.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from celery import Celery
from kombu.entity import Queue

log = logging.getLogger(__name__)

POLL, WEBHOOK, DOWNLOAD, DEFAULT = "poll", "webhook", "download", "default"
QUEUES = (DEFAULT, POLL, WEBHOOK, DOWNLOAD)

DISPATCH = "tracker.dispatch"
ASK = "tracker.ask"
SEND = "tracker.send"
FETCH = "tracker.fetch"

COALESCE_SECONDS = 5
"""A ring is remembered this long when nobody answers it; the answerer forgets it before it claims."""
CHANGED = "tracker:changed"
"""The channel that carries the ids of generations that changed, for those who wait."""


def celery_app(broker_url: str, *, embedded_namespace: str = "tracker:") -> Celery:
    """The Celery application, configured by what was measured: see docs/OPERATIONS.md."""
    app = Celery("tracker", broker=broker_url)
    transport: dict[str, Any] = {"socket_connect_timeout": 5}
    if broker_url.startswith(("redis", "rediss")):
        transport |= {
            "visibility_timeout": 240,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # A publish on a dead socket would block for ever without these.
            "socket_timeout": 30,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "retry_on_timeout": True,
            "global_keyprefix": embedded_namespace,
        }
    else:
        transport = {"confirm_publish": True}
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=5,
        broker_transport_options=transport,
        # Early acks: a lost message is found again in the database within a tick, while late acks redeliver long downloads.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        task_ignore_result=True,
        result_backend=None,
        task_serializer="json",
        accept_content=["json"],
        task_create_missing_queues=False,
        task_default_queue=DEFAULT,
        task_default_queue_type="quorum" if not broker_url.startswith(("redis", "rediss")) else "classic",
        task_queues=[Queue(name) for name in QUEUES],  # type: ignore[no-untyped-call]
        task_publish_retry=False,
        task_soft_time_limit=50,
        task_time_limit=60,
        worker_max_tasks_per_child=5000,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        timezone="UTC",
        enable_utc=True,
        beat_max_loop_interval=5,
    )
    return app


class Bell:
    """Rings queues. One per process, made after fork."""

    def __init__(self, app: Celery, redis_url: str) -> None:
        self._app = app
        self._redis = redis.Redis.from_url(
            redis_url, socket_timeout=2, socket_connect_timeout=2, health_check_interval=25, protocol=2
        )

    def ring(self, task: str, queue: str, *, because: str = "", expires: float = 10.0) -> bool:
        """Wake the workers of `queue` once, however often it is rung before one answers. `because` is shown in Flower.

        True when a message went out; False when one is on its way already or the broker is down (the tick is the safety net).
        """
        try:
            if not self._redis.set(f"tracker:rung:{task}", b"1", nx=True, ex=COALESCE_SECONDS):
                return False
        except redis.RedisError:
            log.debug("rings cannot be coalesced: redis is not reachable")
        return self.publish(task, queue, [], shown=because, expires=expires)

    def answered(self, task: str) -> None:
        """Forget the ring: called before the claim, so that work made from now on rings again."""
        try:
            self._redis.delete(f"tracker:rung:{task}")
        except redis.RedisError:
            log.debug("a ring cannot be forgotten: redis is not reachable")

    def publish(self, task: str, queue: str, arguments: Sequence[Any], *, shown: str, expires: float) -> bool:
        """Send one message. `shown` is what a person reads in Flower; `expires` is in seconds."""
        try:
            self._app.send_task(
                task,
                args=list(arguments),
                queue=queue,
                expires=expires,
                argsrepr=shown or "()",
                kwargsrepr="{}",
                retry=False,
            )
        except Exception as wrong:  # noqa: BLE001 - brokers raise what they like; the row in the database is due anyway
            log.warning("the broker did not take %s: %s", task, type(wrong).__name__)
            return False
        return True

    def changed(self, generation_ids: Sequence[str]) -> None:
        """Tell those who wait that these generations changed."""
        try:
            if generation_ids:
                self._redis.publish(CHANGED, " ".join(generation_ids))
        except redis.RedisError:
            log.debug("waiters are not told: redis is not reachable")

    def reachable(self) -> Mapping[str, bool]:
        """Whether the broker and Redis answer now."""
        try:
            ours = bool(self._redis.ping())
        except redis.RedisError:
            ours = False
        try:
            with self._app.connection_for_write(connect_timeout=2) as connection:
                connection.ensure_connection(max_retries=0, timeout=2)
                broker = True
        except Exception:  # noqa: BLE001 - any failure means the same
            broker = False
        return {"redis": ours, "broker": broker}

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()
        self._app.close()
