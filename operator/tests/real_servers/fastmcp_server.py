"""A FastMCP server that says how many sessions it holds: fastmcp_server.py PORT stateless|stateful."""

import sys

import uvicorn
from fastmcp import FastMCP
from starlette.responses import PlainTextResponse
from starlette.routing import Route

port, mode = int(sys.argv[1]), sys.argv[2]
mcp = FastMCP("adder")


@mcp.tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


app = mcp.http_app(path="/mcp", stateless_http=mode == "stateless")
endpoint = next(route.endpoint for route in app.routes if route.path == "/mcp")


async def sessions(_request):
    # The SDK has no public count; the manager exists once the application has started.
    return PlainTextResponse(str(len(endpoint.session_manager._server_instances)))


app.routes.append(Route("/sessions", sessions))
uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
