"""The doorbell: Celery's configuration, and ringing a queue by name.

Postgres is the diary. A message carries ids at most, is never the only trace of work, and may be lost, doubled or late without
harm; so ringing never raises and never waits long.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any

import redis
from celery import Celery
from kombu.entity import Queue
from kombu.transport import redis as over_redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from typing_extensions import override

from tracker.afterwards import Afterwards

log = logging.getLogger(__name__)

POLL, WEBHOOK, DOWNLOAD, DEFAULT = "poll", "webhook", "download", "default"
QUEUES = (DEFAULT, POLL, WEBHOOK, DOWNLOAD)

DISPATCH = "poll.dispatch"
ASK = "poll.ask"
SEND = "webhook.send"
FETCH = "download.fetch"
SWEEP_COPIES = "download.sweep"

COALESCE_SECONDS = 5
"""A ring is remembered this long when nobody answers it; the answerer forgets it before it claims."""
PATIENCE = 1.0
"""Seconds that one step of ringing may take. A request waits for it, and the tick finds the work anyway."""
SILENCE = 5.0
"""Seconds without a try after Redis or the broker failed us: everybody would wait for it otherwise, one after the other."""
RUNG, AWAKE = b"rung", b"awake"
"""What is kept of a ring: that a message is on its way, or that somebody is awake who needs none."""
CHANGED = "tracker:changed"
"""The channel that carries the ids of generations that changed, for those who wait."""


class _GivesBackWhatItCan(over_redis.QoS):
    """What a closing connection returns to its queue: messages that wait for a free process.

    Where the broker is gone that fails, at times with an AttributeError (kombu 5.7), which would end the whole worker.
    """

    @override
    def restore_unacked(self, client: Any = None) -> None:
        try:
            super().restore_unacked(client)  # type: ignore[no-untyped-call]
        except Exception as wrong:  # noqa: BLE001 - whatever it is, what a message was about is still due
            log.debug("messages could not be given back: %r", wrong)
            self._delivered.clear()


over_redis.Channel.QoS = _GivesBackWhatItCan


def celery_app(broker_url: str, *, embedded_namespace: str = "tracker:") -> Celery:
    """The Celery application, configured by what was measured: see docs/OPERATIONS.md."""
    app = Celery("tracker", broker=broker_url)
    transport: dict[str, Any] = {"socket_connect_timeout": 5}
    if _is_redis(broker_url):
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
    kind = {} if _is_redis(broker_url) else {"x-queue-type": "quorum"}
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
        task_queues=[Queue(name, routing_key=name, queue_arguments=kind) for name in QUEUES],  # type: ignore[no-untyped-call]
        task_publish_retry=False,
        task_soft_time_limit=50,
        task_time_limit=60,
        worker_max_tasks_per_child=5000,
        worker_send_task_events=True,
        worker_hijack_root_logger=False,
        # It concerns late acks alone; unset, Celery warns of it at each lost connection.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        timezone="UTC",
        enable_utc=True,
        beat_max_loop_interval=5,
    )
    return app


def publisher(broker_url: str) -> Celery:
    """The application of those who only ring: it gives up at once, where a worker goes on trying to reach its broker."""
    app = celery_app(broker_url)
    # Without `max_retries` a publish tries for 6 s towards a closed port, and for two minutes towards a mute one (measured).
    patience: dict[str, Any] = {"max_retries": 0, "connect_retries_timeout": PATIENCE}
    if _is_redis(broker_url):
        patience |= {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE, "retry_on_timeout": False}
    else:
        patience |= {"read_timeout": PATIENCE, "write_timeout": PATIENCE}
    app.conf.broker_connection_timeout = app.conf.broker_pool_acquire_timeout = PATIENCE
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, **patience}
    return app


def _is_redis(url: str) -> bool:
    return url.startswith(("redis:", "rediss:"))


def _key(task: str) -> str:
    return f"tracker:rung:{task}"


class _Circuit:
    """Whether a server is worth a try: not for a while after it failed."""

    def __init__(self) -> None:
        self._until = float("-inf")

    @property
    def open(self) -> bool:
        return monotonic() < self._until

    def failed(self) -> None:
        self._until = monotonic() + SILENCE


class Bell:
    """Rings queues. One per process, made after fork."""

    def __init__(self, app: Celery, redis_url: str) -> None:
        self._app = app
        # One retry, at once: a kept connection may have died with the server's last restart.
        self._redis = redis.Redis.from_url(
            redis_url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, health_check_interval=25, protocol=2,
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )  # fmt: skip
        self._afterwards = Afterwards()
        self._redis_circuit = _Circuit()
        # Usually both are one server, and then nobody waits for it twice.
        self._broker_circuit = self._redis_circuit if app.conf.broker_url == redis_url else _Circuit()

    @property
    def mute(self) -> bool:
        """Whether the broker failed a moment ago: nothing can be published yet."""
        return self._broker_circuit.open

    def ring(self, task: str, queue: str, *, because: str = "", expires: float = 10.0) -> bool:
        """Wake the workers of `queue` once, however often it is rung before one answers. `because` is shown in Flower.

        True when a message went out; False when one is on its way already or the broker is down (the tick is the safety net).
        """
        if self._broker_circuit.open or self._rung(task):
            return False
        sent = self.publish(task, queue, [], shown=because, expires=expires)
        if not sent:
            self.answered(task)  # nobody will: the next one shall try again
        return sent

    def ring_soon(self, task: str, queue: str, *, because: str = "") -> None:
        """Ring without waiting for it, for those whom a caller waits for."""
        self._afterwards.do(task, partial(self.ring, task, queue, because=because))

    def _rung(self, task: str) -> bool:
        """Whether a message is on its way already, or somebody awake needs none; without Redis one too many does no harm."""
        if self._redis_circuit.open:
            return False
        try:
            # First as it mostly is while there is much to do, and again where somebody came between: who only looks must see it rung.
            if self._remind(task):
                return True
            return not self._redis.set(_key(task), RUNG, nx=True, ex=COALESCE_SECONDS) and self._remind(task)
        except redis.RedisError:
            self._redis_failed()
            return False

    def _remind(self, task: str) -> bool:
        """Leave word for who is awake, or is being woken; False when there is nobody."""
        # Its life is not prolonged: a message that was lost, or a process that died awake, must not silence us for ever.
        return self._redis.set(_key(task), RUNG, xx=True, keepttl=True) is not None

    def _redis_failed(self) -> None:
        self._redis_circuit.failed()
        log.warning("redis is not reachable; rings are not coalesced, and waiters are told late")

    def answered(self, task: str) -> None:
        """Forget the ring: called before the claim, so that work made from now on rings again."""
        self._redis_call("delete", _key(task))

    def awake(self, task: str) -> bool:
        """Say that this process is awake and will ask again within milliseconds: rings send no message. True when it was rung."""
        return bool(self._redis_call("set", _key(task), AWAKE, get=True, ex=1) == RUNG)

    def asleep(self, task: str) -> bool:
        """Say that rings need a message again. True when it was rung since the last look: then there is no sleep yet."""
        return bool(self._redis_call("getdel", _key(task)) == RUNG)

    def _redis_call(self, name: str, *arguments: str | bytes, **options: Any) -> Any:
        """What Redis answers; None when it does not."""
        if self._redis_circuit.open:
            return None
        try:
            return getattr(self._redis, name)(*arguments, **options)
        except redis.RedisError:
            self._redis_failed()
            return None

    def publish(self, task: str, queue: str, arguments: Sequence[Any], *, shown: str, expires: float) -> bool:
        """Send one message. `shown` is what a person reads in Flower; `expires` is in seconds. False when the broker did not take it."""
        if self._broker_circuit.open:
            return False
        message: dict[str, Any] = {
            "args": list(arguments), "queue": queue, "expires": expires, "argsrepr": shown or "()", "kwargsrepr": "{}",
        }  # fmt: skip
        wrong = self._send(task, message)
        if wrong is not None:
            self._broker_circuit.failed()
            log.warning("the broker did not take %s: %s", task, type(wrong).__name__)
        return wrong is None

    def _send(self, task: str, message: dict[str, Any]) -> Exception | None:
        began, wrong = monotonic(), None
        # What fails at once fails twice: a kept connection may have died with the broker's last restart.
        while monotonic() - began < PATIENCE / 2:
            try:
                self._app.send_task(task, **message, retry=False, timeout=PATIENCE, confirm_timeout=PATIENCE)
            except Exception as said:  # noqa: BLE001 - brokers raise what they like; the row in the database is due anyway
                if wrong is not None:
                    return said
                wrong = said
            else:
                return None
        return wrong

    def changed(self, generation_ids: Sequence[str]) -> None:
        """Tell those who wait that these generations changed."""
        if generation_ids:
            self._redis_call("publish", CHANGED, " ".join(generation_ids))

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
        """Ring what is still to be rung, and give the connections back."""
        self._afterwards.close(2 * PATIENCE)
        self._redis.close()
        self._app.close()
