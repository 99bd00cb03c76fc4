"""Calls one tool as a client of each era, and looks for a word in the answers. Usage: real_client.py URL TOOL ARGUMENTS WORD"""

import json
import re
import sys
import urllib.request

url, tool, arguments, word = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]


def post(body, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    headers |= {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    request = urllib.request.Request(url, json.dumps({"jsonrpc": "2.0"} | body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        text = response.read().decode()
        data = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        return response.headers, json.loads(data[-1] if data else text or "null")


def check(answer):
    if not re.search(word, json.dumps(answer, ensure_ascii=False).replace('\\"', '"').replace("\\n", " ")):
        sys.exit(f"no {word} in {answer}")


call = {"id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "check", "version": "1"}}
headers, answer = post({"id": 1, "method": "initialize", "params": client})
session = headers["mcp-session-id"]
post({"method": "notifications/initialized"}, mcp_session_id=session)
check(post(call, mcp_session_id=session)[1])

modern = "2026-07-28"
call["params"]["_meta"] = {"io.modelcontextprotocol/protocolVersion": modern, "io.modelcontextprotocol/clientCapabilities": {}}
check(post(call, mcp_protocol_version=modern, mcp_method="tools/call", mcp_name=tool)[1])
