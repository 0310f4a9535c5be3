"""A bare asyncio loop over aiohttp: no queue, no database, nothing kept. What it forgets at a restart is everything."""

import asyncio
import os
import ssl
import sys
from pathlib import Path

import aiohttp
import orjson
import uvloop
from common import HEADERS, IN_FLIGHT, UPSTREAM


async def main(ids: list[str]) -> None:
    tls = ssl.create_default_context(cafile=os.environ["BENCH_CA"]) if UPSTREAM.startswith("https") else False
    states: dict[str, str] = {}
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=IN_FLIGHT, ssl=tls), headers=HEADERS
    ) as session:

        async def poller(waiting) -> None:
            for task_id in waiting:
                async with session.get(f"{UPSTREAM}/luma/generations/{task_id}") as answer:
                    states[task_id] = orjson.loads(await answer.read())["state"]

        print("ready", flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            _, first, count = line.split()
            waiting = iter(ids[int(first) : int(first) + int(count)])
            await asyncio.gather(*(poller(waiting) for _ in range(IN_FLIGHT)))
            print("done", flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(os.environ["BENCH_IDS"]).read_text().split()))
