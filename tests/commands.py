"""The real command in a process of its own, for tests of what surrounds it: signals, streams, rights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable


def start(
    *arguments: object, before: Callable[[], object] | None = None, environment: dict[str, str] | None = None, **options
) -> subprocess.Popen:
    """``python -m mga`` with its output in pipes; ``before`` runs in the process before the command does."""

    def prepare() -> None:
        # A test run in the background of a shell ignores the signal, and its children would inherit that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if before is not None:
            before()

    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | (environment or {})
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    command = [sys.executable, "-m", "mga", *map(os.fspath, map(_text, arguments))]
    return subprocess.Popen(command, env=environment, preexec_fn=prepare, **options)


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
