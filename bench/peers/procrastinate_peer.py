"""procrastinate: one job per generation, in PostgreSQL. `python procrastinate_peer.py` is the producer, `... worker` the worker."""

import asyncio
import sys

import uvloop
from common import DATABASE_URL, IN_FLIGHT, Kit, obey
from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=DATABASE_URL, min_size=4, max_size=20))
kits: list[Kit] = []


@app.task(name="poll")
async def poll(task_id: str) -> None:
    await kits[0].poll(task_id)


async def work() -> None:
    async with app.open_async():
        kits.append(await Kit().open())
        print("ready", flush=True)
        await app.run_worker_async(concurrency=IN_FLIGHT, install_signal_handlers=False, delete_jobs="successful")


async def produce() -> None:
    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        await obey(lambda task_id: poll.defer_async(task_id=task_id))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work() if sys.argv[1:] == ["worker"] else produce())
