"""arq: one job per generation. `python arq_peer.py` is the producer, `python arq_peer.py worker` the worker."""

import asyncio
import sys

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker
from common import IN_FLIGHT, REDIS_URL, Kit, obey


async def poll(context, task_id: str) -> None:
    await context["kit"].poll(task_id)


async def startup(context) -> None:
    context["kit"] = await Kit().open()
    print("ready", flush=True)


async def shutdown(context) -> None:
    await context["kit"].close()


async def produce() -> None:
    redis = await create_pool(RedisSettings.from_dsn(REDIS_URL))
    await obey(lambda task_id: redis.enqueue_job("poll", task_id))


async def work() -> None:
    worker = Worker(
        [poll],
        redis_settings=RedisSettings.from_dsn(REDIS_URL),
        max_jobs=IN_FLIGHT,
        keep_result=0,
        on_startup=startup,
        on_shutdown=shutdown,
    )
    await worker.async_run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work() if sys.argv[1:] == ["worker"] else produce())
