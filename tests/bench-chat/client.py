"""The chat of turn.py held in this process, for nobody else: the same conversations as `bench.rs` holds with a chat worker. Prints the
same figures, and its own CPU seconds while the streams run."""

import argparse
import asyncio
import json
import resource
import time

from turn import connected


def summary(values):
    values.sort()
    at = lambda percent: values[min(len(values) * percent // 100, len(values) - 1)] * 1000 if values else 0.0
    return {"count": len(values), "p50_ms": at(50), "p99_ms": at(99), "max_ms": at(100)}


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--mcp", required=True)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--hellos", type=int, default=200)
    parser.add_argument("--streams", type=int, default=500)
    args = parser.parse_args()
    async with connected(args.model, args.mcp) as turn:

        async def timed(question):
            """When the pieces of an answer came, and when its rounds ended."""
            began, texts, rounds = time.perf_counter(), [], []
            async for name, _ in turn(question):
                {"text": texts, "tool_result": rounds, "done": []}[name].append(time.perf_counter() - began)
            return texts, rounds

        async def later(number):
            await asyncio.sleep(0.002 * number)
            return await timed(f"stream {number}")

        hellos, rounds = [], []
        for number in range(args.hellos + 1):
            texts, _ = await timed(f"hello {number}")
            hellos += texts[:1] if number else []
        for number in range(args.turns + 1):
            _, ends = await timed(f"rounds {number}")
            rounds += [b - a for a, b in zip(ends, ends[1:])] if number else []
        cpu, began = time.process_time(), time.perf_counter()
        done = await asyncio.gather(*(later(number) for number in range(args.streams)))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    gaps = [b - a for texts, _ in done for a, b in zip(texts, texts[1:])]
    first = [texts[0] for texts, _ in done]
    print(json.dumps({"first_token": summary(hellos), "round": summary(rounds), "gap": summary(gaps), "stream_first_token": summary(first),
                      "streams": args.streams, "stream_seconds": seconds, "cpu": cpu,
                      "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


asyncio.run(main())
