"""Shared by the peers: where things are, one kind poll for those that use asyncio, and the loop that takes orders."""

import asyncio
import os
import ssl
import sys
from collections.abc import Awaitable, Callable

DATABASE_URL = os.environ["BENCH_DATABASE_URL"]
REDIS_URL = os.environ["BENCH_REDIS_URL"]
UPSTREAM = os.environ["BENCH_UPSTREAM"]
IN_FLIGHT = int(os.environ["BENCH_IN_FLIGHT"])
HEADERS = {"Accept": "application/json", "Content-Type": "application/json", "Authorization": "Bearer key"}

SELECT = "SELECT task_id FROM generations WHERE number >= $1 AND number < $2"
UPDATE = "UPDATE generations SET status = $2, polled_at = now() WHERE task_id = $1"


class Kit:
    """One kept-alive aiohttp session and one asyncpg pool per worker: kinder than what most people write."""

    async def open(self):
        import aiohttp
        import asyncpg

        tls = ssl.create_default_context(cafile=os.environ["BENCH_CA"]) if UPSTREAM.startswith("https") else False
        connector = aiohttp.TCPConnector(limit=IN_FLIGHT, ssl=tls)
        self.session = aiohttp.ClientSession(connector=connector, headers=HEADERS)
        self.pool = await asyncpg.create_pool(DATABASE_URL, min_size=4, max_size=20)
        return self

    async def poll(self, task_id: str) -> None:
        """Ask, read, and store what was seen in one statement."""
        import orjson

        async with self.session.get(f"{UPSTREAM}/luma/generations/{task_id}") as answer:
            state = orjson.loads(await answer.read())["state"]
        await self.pool.execute(UPDATE, task_id, state)

    async def close(self):
        await self.session.close()
        await self.pool.close()


def orders():
    """The orders as they come: (first, count)."""
    print("ready", flush=True)
    for line in sys.stdin:
        _, first, count = line.split()
        yield int(first), int(count)
        print("done", flush=True)


async def obey(enqueue: Callable[[str], Awaitable[object]]) -> None:
    """Take orders, and enqueue one job per generation."""
    import asyncpg

    connection = await asyncpg.connect(DATABASE_URL)
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _, first, count = line.split()
        for row in await connection.fetch(SELECT, int(first), int(first) + int(count)):
            await enqueue(row["task_id"])
        print("done", flush=True)
