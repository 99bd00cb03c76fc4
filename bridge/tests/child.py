"""An MCP server on standard input and output that does what its callers ask, also what no server should. Its tools are its behaviours.

Usage: child.py legacy|modern|both|unlisted [OPTION...]    modern answers server/discover, legacy initialize; unlisted whichever of both it hears
first, and lists the modern revision alone.
Options: mute-discover (says nothing to server/discover), die-at-discover, die-at-initialize, refuse-initialize, die-at-start, banner, ignore-eof, ask-capabilities, slow-start, slower-start
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time

era, options = sys.argv[1], sys.argv[2:]
lock = threading.Lock()
waiting = {}
seen = {"cancelled": [], "initialize": None, "requests": 0}


def raw(text):
    with lock:
        os.write(1, text.encode())


def say(message):
    data = (json.dumps({"jsonrpc": "2.0"} | message, separators=(",", ":")) + "\n").encode()
    with lock:
        while data:
            data = data[os.write(1, data):]


def answer(id, result):
    say({"id": id, "result": ({"resultType": "complete"} if era != "legacy" else {}) | result})


def text(id, words):
    answer(id, {"content": [{"type": "text", "text": words}]})


def ask(method, params):
    id = f"ask-{len(waiting)}"
    waiting[id] = threading.Event()
    say({"id": id, "method": method, "params": params})
    waiting[id].wait(20)
    return waiting[id].answer


def call(id, params):
    name, arguments, meta = params.get("name"), params.get("arguments", {}), params.get("_meta", {})
    if name == "echo":
        text(id, json.dumps(arguments, ensure_ascii=False))
    elif name == "seen":
        text(id, json.dumps(seen | {"pid": os.getpid(), "meta": meta}))
    elif name == "die":
        print("\x1b[31mCannot find module './x'\x1b[0m", file=sys.stderr, flush=True)
        os._exit(arguments.get("code", 1))
    elif name == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "answer-and-die":
        text(id, "last words")
        os._exit(0)
    elif name == "answer-without-end-and-die":
        raw(json.dumps({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "last words"}]}}))
        os._exit(0)
    elif name == "half":
        raw('{"jsonrpc":"2.0","id":')
        os._exit(3)
    elif name == "never":
        pass
    elif name == "sleep":
        time.sleep(arguments["seconds"])
        text(id, "slept")
    elif name == "progress":
        for step in range(arguments["steps"]):
            say({"method": "notifications/progress", "params": {"progressToken": meta.get("progressToken"), "progress": step}})
            time.sleep(arguments.get("pause", 0))
        text(id, "done")
    elif name == "long":
        text(id, "x" * arguments["bytes"])
    elif name == "batch":
        raw(json.dumps([{"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "of several"}]}}]) + "\n")
    elif name == "no-line-end":
        raw("x" * arguments["bytes"])
        if arguments.get("die"):
            os._exit(0)
        raw("\n")
        text(id, "after")
    elif name == "twice":
        text(id, "first")
        text(id, "second")
    elif name == "another-id":
        answer(987654321, {"content": []})
        answer("not ours", {"content": []})
        text(id, "mine")
    elif name == "nameless":
        raw('{"jsonrpc":"2.0",%s"error":{"code":-32700,"message":"Parse error"}}\n' % ('"id":null,' if arguments["null"] else ""))
    elif name == "as-string":
        text(str(id), "string")
    elif name == "close-stdout":
        os.close(1)
        time.sleep(1000)
    elif name == "stop-reading":
        text(id, "deaf")
        threading.Event().wait()
    elif name == "close-stdin":
        os.close(0)
        text(id, "closed")
        threading.Event().wait()
    elif name == "ping-flood":
        # As many as are wanted, and nobody reads what comes back.
        for start in range(0, arguments["pings"], 1000):
            raw("".join(f'{{"jsonrpc":"2.0","id":"{number:0200}","method":"ping"}}\n' for number in range(start, start + 1000)))
        text(id, "flooded")
        threading.Event().wait()
    elif name == "ask-flood":
        for number in range(arguments["questions"]):
            say({"id": f"{number:01000}", "method": "elicitation/create", "params": {"message": "who?"}})
        text(id, "asked")
    elif name == "progress-and-die":
        say({"method": "notifications/progress", "params": {"progressToken": meta.get("progressToken"), "progress": 1}})
        time.sleep(0.3)
        os._exit(5)
    elif name == "heir":
        # It has our pipes, and outlives us.
        heir = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=bool(arguments.get("away")))
        print(f"heir {heir.pid}", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "deep":
        raw('{"jsonrpc":"2.0","id":%s,"result":%s1%s}\n' % (json.dumps(id), '{"a":' * arguments["levels"], "}" * arguments["levels"]))
    elif name == "both":
        say({"id": id, "result": {}, "error": {"code": -1, "message": "and an error"}})
    elif name == "early":
        # Calls to come are answered before they are made.
        for number in range(id + 1, id + 20):
            text(number, "early")
        text(id, "mine")
    elif name == "fork":
        # One in the group, one that leaves it, one that leaves it and forgets its parent; one that leaves it and starts another one, with
        # an environment and without; and one that leaves it and forgets both its parent and its environment.
        code = "import os,sys,time; os.setsid() if sys.argv[1] == 'away' else None; time.sleep(1000)"
        pids = [subprocess.Popen([sys.executable, "-c", code, where], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid for where in ("here", "away")]
        read, write = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(write, str(os.getpid()).encode())
                for fd in (0, 1, 2):
                    os.close(fd)
                time.sleep(1000)
            os._exit(0)
        os.wait()
        pids.append(int(os.read(read, 20)))
        for environment in (None, {"PATH": os.environ["PATH"]}):
            parent = subprocess.Popen(["sh", "-c", "sleep 1000 >/dev/null & echo $!; wait"], env=environment, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            pids += [parent.pid, int(parent.stdout.readline())]
        bare = subprocess.run(["env", "-i", "sh", "-c", "setsid sleep 1000 >/dev/null & echo $!"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        text(id, json.dumps(pids + [int(bare.stdout)]))
    elif name == "zombies":
        for _ in range(5):
            if os.fork() == 0:
                if os.fork() == 0:
                    os._exit(0)
                os._exit(0)
            os.wait()
        text(id, "forked")
    elif name == "flood":
        for number in range(arguments["lines"]):
            say({"method": "notifications/progress", "params": {"progressToken": meta.get("progressToken"), "progress": number, "message": "x" * 1000}})
        text(id, "flooded")
    elif name == "stray":
        raw("Server running on stdio\n\n<html>\n[1]\n{\"id\": 5}\n")
        text(id, "after")
    elif name == "log":
        say({"method": "notifications/message", "params": {"level": arguments.get("level", "info"), "data": arguments.get("data", "log")}})
        text(id, "logged")
    elif name == "change-tools":
        say({"method": "notifications/tools/list_changed"})
        text(id, "changed")
    elif name == "touch":
        say({"method": "notifications/resources/updated", "params": {"uri": arguments["uri"]}})
        text(id, "touched")
    elif name == "elicit" and era == "modern":
        if "inputResponses" in params:
            text(id, json.dumps({"answers": params["inputResponses"], "state": params["requestState"]}))
        else:
            wanted = {"q": {"method": "elicitation/create", "params": {"message": "who?"}}}
            answer(id, {"resultType": "input_required", "inputRequests": wanted, "requestState": "secret"})
    elif name == "elicit":
        text(id, json.dumps(ask("elicitation/create", {"message": "who?"})))
    elif name == "fails":
        answer(id, {"content": [], "isError": True})
    else:
        say({"id": id, "error": {"code": -32602, "message": f"Unknown tool: {name}"}})


def handle(message):
    global era
    id, method, params = message.get("id"), message.get("method"), message.get("params", {})
    if method is None:
        if event := waiting.get(id):
            event.answer = message.get("result") or message.get("error")
            event.set()
    elif id is None:
        if method == "notifications/cancelled":
            seen["cancelled"].append(params.get("requestId"))
            seen["reason"] = params.get("reason")
    elif era == "unlisted" and method in ("server/discover", "initialize"):
        era = "legacy" if method == "initialize" else "modern"
        handle(message)
    elif method == "server/discover" and "mute-discover" in options:
        pass
    elif method == "server/discover" and "die-at-discover" in options:
        sys.exit(f"Error: unknown method {method}")
    elif method == "server/discover" and era in ("modern", "both"):
        info = {"io.modelcontextprotocol/serverInfo": {"name": "child", "version": "1"}}
        answer(id, {"resultType": "complete", "supportedVersions": ["2026-07-28"] + ["2025-11-25"] * (era == "both"), "capabilities": capabilities, "ttlMs": 0, "cacheScope": "private", "_meta": info})
    elif method == "initialize" and "die-at-initialize" in options:
        sys.exit("Error: no credentials")
    elif method == "initialize" and "refuse-initialize" in options:
        say({"id": id, "error": {"code": -32602, "message": "Unsupported protocol version"}})
    elif method == "initialize" and era in ("legacy", "both"):
        seen["initialize"] = params
        answer(id, {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": {"name": "child", "version": "1"}})
    elif method == "tools/list":
        answer(id, {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]} | ({"ttlMs": 0, "cacheScope": "private"} if era != "legacy" else {}))
    elif method == "tools/call":
        # These read nothing more: what is written to them is not heard.
        if params.get("name") in ("stop-reading", "ping-flood", "close-stdin", "answer-and-die", "answer-without-end-and-die"):
            call(id, params)
        threading.Thread(target=call, args=(id, params), daemon=True).start()
    elif method == "subscriptions/listen" and era == "modern":
        meta = {"io.modelcontextprotocol/subscriptionId": id}
        say({"method": "notifications/subscriptions/acknowledged", "params": {"_meta": meta, "notifications": params["notifications"]}})
        say({"method": "notifications/tools/list_changed", "params": {"_meta": meta}})
    elif method in ("ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe") and era != "modern":
        answer(id, {})
    else:
        say({"id": id, "error": {"code": -32601, "message": f"Method not found: {method}"}})


capabilities = {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}}
if "die-at-start" in options:
    sys.exit("Error: the database is not there")
if "banner" in options:
    raw("Welcome to the server\n")
if "slow-start" in options:
    time.sleep(1)
if "slower-start" in options:
    time.sleep(3)
for line in iter(sys.stdin.buffer.readline, b""):
    seen["requests"] += 1
    handle(json.loads(line))
if "ignore-eof" in options:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)
