"""taskiq on Redis lists: one task per generation. The worker is `taskiq worker taskiq_peer:broker`, this program the producer."""

import asyncio

import uvloop
from common import REDIS_URL, Kit, obey
from taskiq import TaskiqEvents
from taskiq_redis import ListQueueBroker

broker = ListQueueBroker(REDIS_URL, max_connection_pool_size=2000)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def startup(state) -> None:
    state.kit = await Kit().open()
    print("ready", flush=True)


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def shutdown(state) -> None:
    await state.kit.close()


@broker.task(task_name="poll")
async def poll(task_id: str) -> None:
    await broker.state.kit.poll(task_id)


async def produce() -> None:
    await broker.startup()
    await obey(poll.kiq)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(produce())
