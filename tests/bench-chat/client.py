"""A chat client of the official packages, as their documentation builds one: the same conversations as `bench.rs` holds
with a chat worker. Prints the same figures, and its own CPU seconds while the streams run."""

import argparse
import asyncio
import json
import resource
import time

from anthropic import AsyncAnthropic
from mcp.client import Client


def summary(values):
    values.sort()
    at = lambda percent: values[min(len(values) * percent // 100, len(values) - 1)] * 1000 if values else 0.0
    return {"count": len(values), "p50_ms": at(50), "p99_ms": at(99), "max_ms": at(100)}


async def turn(model, mcp, tools, question):
    """One question to its answer: when its pieces of text came, and when its rounds ended."""
    began, texts, rounds = time.perf_counter(), [], []
    messages = [{"role": "user", "content": question}]
    while True:
        async with model.messages.stream(model="m", max_tokens=4096, tools=tools, messages=messages) as stream:
            async for _ in stream.text_stream:
                texts.append(time.perf_counter() - began)
            message = await stream.get_final_message()
        calls = [block for block in message.content if block.type == "tool_use"]
        if not calls:
            return texts, rounds
        messages.append({"role": "assistant", "content": [block.model_dump(include={"type", "id", "name", "input"}) for block in calls]})
        results = await asyncio.gather(*(mcp.call_tool(call.name.removeprefix("db__"), call.input) for call in calls))
        messages.append({"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": call.id, "is_error": bool(result.is_error),
             "content": [{"type": "text", "text": part.text} for part in result.content]}
            for call, result in zip(calls, results)]})
        rounds.append(time.perf_counter() - began)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--mcp", required=True)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--hellos", type=int, default=200)
    parser.add_argument("--streams", type=int, default=500)
    args = parser.parse_args()
    model = AsyncAnthropic(base_url=args.model, api_key="none")
    async with Client(args.mcp) as mcp:
        listed = await mcp.list_tools()
        tools = [{"name": f"db__{tool.name}", "description": tool.description or "", "input_schema": tool.input_schema} for tool in listed.tools]
        hellos, rounds = [], []
        for number in range(args.hellos + 1):
            texts, _ = await turn(model, mcp, tools, f"hello {number}")
            hellos += texts[:1] if number else []
        for number in range(args.turns + 1):
            _, ends = await turn(model, mcp, tools, f"rounds {number}")
            rounds += [b - a for a, b in zip(ends, ends[1:])] if number else []
        cpu, began = time.process_time(), time.perf_counter()

        async def later(number):
            await asyncio.sleep(0.002 * number)
            return await turn(model, mcp, tools, f"stream {number}")

        done = await asyncio.gather(*(later(number) for number in range(args.streams)))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    gaps = [b - a for texts, _ in done for a, b in zip(texts, texts[1:])]
    first = [texts[0] for texts, _ in done]
    print(json.dumps({"first_token": summary(hellos), "round": summary(rounds), "gap": summary(gaps), "stream_first_token": summary(first),
                      "streams": args.streams, "stream_seconds": seconds, "cpu": cpu,
                      "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


asyncio.run(main())
