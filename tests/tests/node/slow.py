"""An MCP server of another maker: its one tool waits, without work, and calls under way are answered before it ends.

Usage: slow.py [PATH]    the only path at which it answers; without one, it does at any.
"""

import json
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATH = sys.argv[1] if len(sys.argv) > 1 else None
TOOL = {"name": "wait", "inputSchema": {"type": "object", "properties": {"seconds": {"type": "number"}}}}
ABOUT = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "slow", "version": "1"},
}


def answer(method, params):
    """The result of a request; none where there is no such method."""
    if method == "server/discover":
        return ABOUT
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        time.sleep(params["arguments"]["seconds"])
        return {"content": [{"type": "text", "text": "waited"}]}
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if PATH not in (None, self.path):
            self.send_error(404)
            return
        request = json.loads(body)
        result = answer(request.get("method"), request.get("params", {}))
        said = {"jsonrpc": "2.0", "id": request.get("id")}
        if result is None:
            said["error"] = {"code": -32601, "message": "method not found"}
        else:
            said["result"] = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **result}
        body = json.dumps(said).encode()
        self.send_response(404 if result is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = ending.is_set()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # Its end waits for calls under way, and not for connections that only stand there.
    daemon_threads = False
    request_queue_size = 128

    def handle_error(self, *_):
        pass


ending = threading.Event()
Handler.timeout = 5
server = Server(("0.0.0.0", 8080), Handler)


def end(*_):
    ending.set()
    threading.Thread(target=server.shutdown).start()


signal.signal(signal.SIGTERM, end)
server.serve_forever()
server.server_close()
