"""Python code in processes of their own, which begin as forks of one that has imported the package and done no more.

To import PyTorch takes longer than what most tests let such a process do. As a script: that first process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

LONG = 240  # seconds


class Forks:
    """``run`` as often as wanted, then ``close``."""

    def __init__(self, **environment: str):
        named = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, __file__], env=named, **pipes)
        self._folder = tempfile.TemporaryDirectory()

    def run(self, code: str, *arguments: object, environment: dict[str, str] | None = None) -> str:
        """What the code prints; fails where it does, or takes too long."""
        said = [Path(self._folder.name) / name for name in ("out", "errors")]
        words = ["-c", *map(str, arguments)]
        asked = {"code": textwrap.dedent(code), "words": words, "said": [*map(str, said)]}
        self._process.stdin.write(json.dumps(asked | {"environment": environment or {}}) + "\n")
        self._process.stdin.flush()
        status = self._process.stdout.readline().strip()
        out, errors = (path.read_text() for path in said)
        assert status == "0", f"ended with {status}: {errors[-2000:]}"
        return out

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._folder.cleanup()


def _begin(asked: dict) -> None:
    """What the fork does before its code: it is as if it had been started with these words."""
    signal.alarm(LONG)
    for stream, path in zip((1, 2), asked["said"], strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = asked["words"]
    os.environ.update(asked["environment"])


def _serve() -> dict | None:
    """Returns in every fork, with what it was asked for, and at the end with None."""
    while line := sys.stdin.readline():
        asked = json.loads(line)
        if (child := os.fork()) == 0:
            _begin(asked)
            return asked
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


if __name__ == "__main__":
    import mga_kernels.engine.model
    import mga_kernels.images
    import mga_kernels.runtimes.cpu.choose  # noqa: F401

    if (_asked := _serve()) is not None:
        exec(compile(_asked["code"], "<code of a test>", "exec"), {"__name__": "__main__"})
