"""``mga ui`` in a process of its own, and what a browser would ask it for."""

from __future__ import annotations

import fnmatch
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import commands


def found(folder: Path, pattern: str) -> list[Path]:
    """Files of such names below ``folder``, from which others may be removed meanwhile."""
    return [Path(root, name) for root, _, names in os.walk(folder) for name in fnmatch.filter(names, pattern)]


@dataclass
class Page:
    """A page at ``address``, as one browser has it."""

    address: str
    process: subprocess.Popen
    visit: str = ""
    offer: dict[str, Any] = field(default_factory=dict)

    def ask(self, what: str, body: bytes | None = None, headers: dict[str, str] | None = None, **facts: str) -> bytes:
        """What is answered; AssertionError with the sentence where it is a refusal."""
        query = urllib.parse.urlencode({"visit": self.visit, **facts})
        request = urllib.request.Request(f"{self.address}{what}?{query}", body, headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()
        except urllib.error.HTTPError as refusal:
            raise AssertionError(json.loads(refusal.read())["error"]) from None

    def opened(self) -> Page:
        """Another visit of the same page."""
        page = Page(self.address, self.process)
        page.offer = json.loads(page.ask("visit", b""))
        page.visit = page.offer["visit"]
        return page

    def send(self, path: Path, name: str | None = None) -> str:
        return json.loads(self.ask("picture", path.read_bytes(), name=path.name if name is None else name))["id"]

    def start(self, pictures: Sequence[str], *options: object, mask: bool = False) -> list[str]:
        body = {"pictures": list(pictures), "options": list(map(str, options)), "mask": mask}
        return json.loads(self.ask("tasks", json.dumps(body).encode()))["tasks"]

    def tasks(self) -> dict[str, dict[str, Any]]:
        return {task["id"]: task for task in json.loads(self.ask("tasks"))["tasks"]}

    def finished(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Those tasks when there is nothing more to do for them."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            tasks = self.tasks()
            if all(tasks[id]["state"] in ("done", "failed") for id in ids):
                return [tasks[id] for id in ids]
            time.sleep(0.02)
        raise AssertionError(f"tasks that do not end: {[tasks[id]['state'] for id in ids]}")

    def upscale(self, path: Path, *options: object, mask: bool = False) -> dict[str, Any]:
        return self.finished(self.start([self.send(path)], *options, mask=mask))[0]


@contextmanager
def served(*options: object, folder: Path) -> Iterator[Page]:
    """The page, whose temporary files are in ``folder``; Ctrl-C ends it, with nothing said but that."""
    process = commands.start("ui", "--port", "0", *options, environment={"TMPDIR": str(folder)})
    try:
        line = process.stdout.readline()
        assert line.startswith("mga: http://"), line + process.stderr.read()
        yield Page(line.split()[1], process)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors.splitlines()[-1:]) == (130, ["mga: interrupted"])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
