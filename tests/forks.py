"""Python code and commands in processes of their own, which begin as forks of one that has imported the package.

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

LONG = 600  # seconds
TESTS = "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))"
COMMAND = "import sys; from mga.cli import main; sys.exit(main())"


class Forks:
    """``run`` and ``mga`` as often as wanted, then ``close``."""

    def __init__(self, **environment: str):
        self._own = environment
        named = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen([sys.executable, __file__], env=named, **pipes)
        self._folder = tempfile.TemporaryDirectory()

    def result(
        self, code: str, *arguments: object, folder: Path | None = None, **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        """What became of the code in ``folder``, with this process's environment but for what is given; None: without.

        It is ended when it takes too long.
        """
        said = [Path(self._folder.name) / name for name in ("out", "errors")]
        words = ["-c", *map(str, arguments)]
        named = {**os.environ, **self._own, **environment}
        asked = {
            "code": textwrap.dedent(code),
            "words": words,
            "said": [*map(str, said)],
            "folder": str(folder or Path.cwd()),
            "environment": {name: value for name, value in named.items() if value is not None},
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        return subprocess.CompletedProcess(words, status, *(path.read_text() for path in said))

    def run(self, code: str, *arguments: object, **options) -> str:
        """What the code prints; fails where it does."""
        done = self.result(code, *arguments, **options)
        assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-2000:]}"
        return done.stdout

    def mga(self, *words: object, **options) -> subprocess.CompletedProcess[str]:
        """The command with these words."""
        return self.result(COMMAND, *words, **options)

    def pytest(self, *words: object, **options) -> subprocess.CompletedProcess[str]:
        """A run of tests, with these words."""
        return self.result(TESTS, *words, **options)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._folder.cleanup()


def _become(asked: dict) -> None:
    """What the fork does before its code: it is as if ``python -c`` had been started with these words."""
    signal.alarm(LONG)
    for stream, path in zip((1, 2), asked["said"], strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
        os.close(file)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(asked["folder"])
    sys.argv = asked["words"]
    if not sys.flags.safe_path:
        sys.path[0] = ""
    os.environ.clear()
    os.environ.update(asked["environment"])


def _serve() -> dict | None:
    """Returns in every fork, with what it was asked for, and at the end with None."""
    while line := sys.stdin.readline():
        asked = json.loads(line)
        if (child := os.fork()) == 0:
            _become(asked)
            return asked
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


if __name__ == "__main__":
    import mga.cli  # noqa: F401
    import mga_kernels.engine.model
    import mga_kernels.images
    import mga_kernels.runtimes.cpu.choose  # noqa: F401

    if (_asked := _serve()) is not None:
        exec(compile(_asked["code"], "<code of a test>", "exec"), {"__name__": "__main__"})
