"""The real command in a process of its own, for tests of what surrounds it: signals, streams, rights."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence


def after(preparation: str, command: Sequence[str | bytes]) -> list[str | bytes]:
    """``command``, begun by a process that first runs ``preparation``, a line of Python.

    ``preexec_fn`` would run it in a copy of this process, which may wait for ever for what another thread has locked.
    """
    program = f"import os, sys; {preparation}; os.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-I", "-S", "-c", program, *command]


def start(
    *arguments: object, before: str = "pass", environment: dict[str, str] | None = None, **options
) -> subprocess.Popen:
    """``python -m mga`` with its output in pipes; ``before``, a line of Python, runs before the command does."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | (environment or {})
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    command = [sys.executable, "-m", "mga", *map(os.fspath, map(_text, arguments))]
    # A test run in the background of a shell ignores the signal, and its children would inherit that.
    preparation = f"import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); {before}"
    return subprocess.Popen(after(preparation, command), env=environment, **options)


def _text(argument: object) -> object:
    return argument if isinstance(argument, (str, bytes, os.PathLike)) else str(argument)


def run(*arguments: object, timeout: float = 120, **options) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the command."""
    process = start(*arguments, **options)
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out, errors
