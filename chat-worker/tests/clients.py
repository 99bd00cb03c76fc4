"""The official Python client lists and calls the fleet's tools.
Usage: clients.py URL MODE, where MODE is a mode of the client of 2.x (auto, legacy, a revision), or `v1` for the one of 1.x.
"""

import asyncio
import sys
from contextlib import asynccontextmanager
from importlib.metadata import version


async def elicited(_context, _params):
    from mcp.types import ElicitResult

    return ElicitResult(action="accept", content={"name": "Ann", "check": True})


@asynccontextmanager
async def connect(url, mode):
    """A connected client, and the revision that it speaks."""
    if mode == "v1":
        from mcp import ClientSession
        from mcp.client.streamable_http import streamablehttp_client

        async with streamablehttp_client(url) as (read, write, _), ClientSession(read, write, elicitation_callback=elicited) as session:
            yield session, (await session.initialize()).protocolVersion
    else:
        from mcp.client.client import Client

        async with Client(url, mode=mode, elicitation_callback=elicited) as client:
            yield client, client.protocol_version


async def main(url, mode):
    async with connect(url, mode) as (client, revision):
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert "db__read_query" in tools, tools
        answer = await client.call_tool("db__read_query", {"query": "SELECT 42 AS answer"})
        failed = getattr(answer, "is_error", getattr(answer, "isError", None))
        assert not failed and "42" in answer.content[0].text, answer
        refused = await client.call_tool("db__read_query", {"query": "DROP TABLE t"})
        assert getattr(refused, "is_error", getattr(refused, "isError", None)), refused
        steps = []

        async def progressed(progress, total, _message):
            steps.append((progress, total))

        operation = {"duration": 0.3, "steps": 3}
        await client.call_tool("everything__trigger-long-running-operation", operation, progress_callback=progressed)
        assert steps == [(1, 3), (2, 3), (3, 3)], steps
        asked = await client.call_tool("everything__trigger-elicitation-request", {})
        assert any("Ann" in getattr(block, "text", "") for block in asked.content), asked
        resource = (await client.list_resources()).resources[0]
        assert (await client.read_resource(resource.uri)).contents, resource
        prompts = (await client.list_prompts()).prompts
        plain = next(prompt for prompt in prompts if not any(argument.required for argument in prompt.arguments or []))
        assert (await client.get_prompt(plain.name)).messages, plain
    print(f"clients: Python {version('mcp')}, {mode}, {revision}: lists {len(tools)} tools of the fleet, and calls them")


asyncio.run(main(*sys.argv[1:]))
