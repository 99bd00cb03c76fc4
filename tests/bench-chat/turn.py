"""A chat over the official packages, as their documentation builds one: the turn that client.py and server.py share."""

import asyncio
from contextlib import asynccontextmanager

from anthropic import AsyncAnthropic
from mcp.client import Client


@asynccontextmanager
async def connected(model_url, mcp_url):
    """The turn, with its model and its server."""
    model = AsyncAnthropic(base_url=model_url, api_key="none")
    async with Client(mcp_url) as mcp:
        listed = await mcp.list_tools()
        tools = [{"name": f"db__{tool.name}", "description": tool.description or "", "input_schema": tool.input_schema} for tool in listed.tools]
        yield lambda question: turn(model, mcp, tools, question)


async def turn(model, mcp, tools, question):
    """One question to its answer: its events, as (name, data), as they come."""
    messages = [{"role": "user", "content": question}]
    while True:
        async with model.messages.stream(model="m", max_tokens=4096, tools=tools, messages=messages) as stream:
            async for text in stream.text_stream:
                yield "text", {"type": "text", "text": text}
            message = await stream.get_final_message()
        calls = [block for block in message.content if block.type == "tool_use"]
        if not calls:
            said = [block.model_dump(include={"type", "text"}) for block in message.content]
            yield "done", {"type": "done", "messages": [*messages, {"role": "assistant", "content": said}]}
            return
        messages.append({"role": "assistant", "content": [block.model_dump(include={"type", "id", "name", "input"}) for block in calls]})
        results = await asyncio.gather(*(mcp.call_tool(call.name.removeprefix("db__"), call.input) for call in calls))
        messages.append({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": call.id, "is_error": bool(result.is_error),
             "content": [{"type": "text", "text": part.text} for part in result.content]}
            for call, result in zip(calls, results)]})
        for call, result in zip(calls, results):
            yield "tool_result", {"type": "tool_result", "id": call.id, "is_error": bool(result.is_error)}
