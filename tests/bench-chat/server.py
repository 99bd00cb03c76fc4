"""The chat of turn.py for callers of an API, as chat-worker serves it: POST /v1/chat, answered by a stream of events. Starlette and
uvicorn are what the mcp package itself serves with."""

import argparse
import asyncio
import json

import uvicorn
from starlette.applications import Starlette
from starlette.responses import StreamingResponse
from starlette.routing import Route

from turn import connected


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--mcp", required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    async with connected(args.model, args.mcp) as turn:

        async def chat(request):
            question = (await request.json())["message"]

            async def events():
                async for name, data in turn(question):
                    yield f"event: {name}\ndata: {json.dumps(data)}\n\n"

            return StreamingResponse(events(), media_type="text/event-stream")

        app = Starlette(routes=[Route("/v1/chat", chat, methods=["POST"])])
        await uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=args.port, log_level="warning")).serve()


asyncio.run(main())
