"""Clients of the official Python SDK, each in a session of its own, call a tool again and again, and check that each answer is theirs.

Usage: sessions.py URL CLIENTS TOOL, with a token in TOKEN where one is needed. Ends when its standard input does, and prints one line of
JSON: {"clients", "calls", "slowest", "errors": [...]}, the slowest call in seconds.
"""

import asyncio
import json
import os
import sys
import time

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

url, clients, tool = sys.argv[1], int(sys.argv[2]), sys.argv[3]
token = os.environ.get("TOKEN")
headers = {"authorization": f"Bearer {token}"} if token else {}
over = asyncio.Event()
told = {"clients": 0, "calls": 0, "slowest": 0.0, "errors": []}


def failed(number, began, what):
    # Seconds since the Unix epoch: what happened in the cluster at that moment is in its log.
    told["errors"].append(f"client {number}, at {time.time():.1f}, after {time.monotonic() - began:.1f} s: {what}")


async def client(number):
    await asyncio.sleep(number * 0.02)
    began = time.monotonic()
    try:
        async with streamablehttp_client(url, headers=headers) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            told["clients"] += 1
            count = 0
            while not over.is_set():
                began = time.monotonic()
                mine = {"client": number, "count": count}
                try:
                    answer = await session.call_tool(tool, mine)
                    if answer.isError or json.loads(answer.content[0].text) != mine:
                        failed(number, began, f"an answer that is not its own: {answer}")
                    if count % 10 == 0:
                        await session.list_tools()
                except Exception as error:
                    failed(number, began, repr(error))
                told["calls"] += 1
                told["slowest"] = max(told["slowest"], time.monotonic() - began)
                count += 1
                await asyncio.sleep(0.1)
    except BaseException as error:
        failed(number, began, f"its session ended: {error!r}")


async def main():
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, lambda: (sys.stdin.read(), loop.call_soon_threadsafe(over.set)))
    await asyncio.gather(*(client(number) for number in range(clients)))
    print(json.dumps(told))


asyncio.run(main())
