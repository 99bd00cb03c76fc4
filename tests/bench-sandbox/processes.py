"""Starts a server for the benchmark, and reads from /proc what it and its children use."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Running:
    """A server with all its children, ended with the block."""

    def __init__(self, contender, db):
        self.contender, self.port = contender, free_port()
        self.command = contender.command(db, self.port)

    def __enter__(self):
        began = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ, **self.contender.env})
        self.start_ms = self.wait_for_an_answer(began)
        self.idle_mib = self.usage()[1]
        return self

    def __exit__(self, *_):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(timeout=10)
                return
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue

    def wait_for_an_answer(self, began, seconds=30):
        """Milliseconds until any HTTP answer comes, or None."""
        while time.monotonic() < began + seconds and self.process.poll() is None:
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.contender.path}", data=json.dumps({}).encode(), headers={"content-type": "application/json"})
            try:
                urllib.request.urlopen(request, timeout=5).close()
            except urllib.error.HTTPError:
                pass
            except OSError:
                time.sleep(0.001)
                continue
            return (time.monotonic() - began) * 1000
        return None

    def usage(self):
        """CPU seconds so far and resident MiB of the server with its children."""
        cpu, rss = 0, 0
        for one in family(self.process.pid):
            try:
                fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            cpu += int(fields[11]) + int(fields[12])
            rss += int(fields[21])
        return cpu / TICKS, rss * PAGE / 2**20


def family(pid):
    """A process and its descendants."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    todo, found = [pid], []
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, [])
    return found
