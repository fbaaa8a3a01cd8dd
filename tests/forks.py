"""Python code and commands in processes of their own, which begin as forks of one that has imported the package.

To import PyTorch takes longer than what most tests let such a process do. As a script: that first process, which is
told by quick_python.py what to do.
"""

from __future__ import annotations

import faulthandler
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from contextlib import suppress
from pathlib import Path

LONG = 540  # seconds, less than a test may take, so that it is this that ends what hangs
CLIENT = Path(__file__).resolve().with_name("quick_python.py")
TESTS = "import sys, pytest; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))"
COMMAND = "import sys; from mga.cli import main; sys.exit(main())"


class Forks:
    """``run`` and ``mga`` as often as wanted, then ``close``.

    ``python``: the path of a program that does as Python does, but has imported the package when it starts.
    """

    def __init__(self, **environment: str):
        self._own = environment
        self._folder = tempfile.TemporaryDirectory(prefix="mga-", dir="/tmp")  # a socket's path must be short
        place = Path(self._folder.name) / "socket"
        self.python = str(Path(self._folder.name) / "python")
        words = [sys.executable, "-IS", CLIENT, place, sys.executable]
        Path(self.python).write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n')
        Path(self.python).chmod(0o755)
        named = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = [sys.executable, __file__, place, self.python]
        self._process = subprocess.Popen(command, env=named, **pipes, start_new_session=True)
        assert self._process.stdout.readline() == b"listens\n", "the process that is to be forked has ended"

    def result(
        self, code: str, *arguments: object, folder: Path | None = None, **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        """What became of the code in ``folder``, with this process's environment but for what is given; None: without.

        What takes longer than LONG is ended by SIGALRM and says where all its threads stood.
        """
        words = [self.python, "-c", textwrap.dedent(code), *map(str, arguments)]
        named = {**os.environ, **self._own, **environment}
        named = {name: value for name, value in named.items() if value is not None}
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "env": named, "cwd": folder}
        return subprocess.run(words, **options)

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


def _serve(place: str) -> dict | None:
    """Returns in every fork, with what it was asked for, and at the end with None."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen()
        print("listens", flush=True)
        while True:
            ready, _, _ = select.select([sys.stdin, listening], [], [])
            if sys.stdin in ready:
                return None
            asking, _ = listening.accept()
            _wait_for_the_ended()
            with asking:
                if os.fork() == 0:
                    listening.close()
                    return _between(asking)


def _wait_for_the_ended() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:  # there are none
        pass


def _between(asking: socket.socket) -> dict:
    """Returns in a fork of this process, which itself hands on signals and, at the end, its status."""
    head, streams, _, _ = socket.recv_fds(asking, 8, 3)
    asked = json.loads(asking.recv(int.from_bytes(head), socket.MSG_WAITALL))
    ended, ending = os.pipe()
    os.set_blocking(ending, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ending)
    if (child := os.fork()) == 0:
        signal.set_wakeup_fd(-1)
        for number in (ended, ending, asking.detach()):
            os.close(number)
        _become(asked, streams)
        return asked
    with suppress(OSError):  # of one that has already ended
        os.setpgid(child, child)  # as it does itself, whichever is first: it may have to end before it has begun
    for stream in streams:
        os.close(stream)
    while True:
        ready, _, _ = select.select([asking, ended], [], [])
        if ended in ready:
            asking.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
            os._exit(0)
        if number := asking.recv(1):
            os.kill(child, number[0])
        else:  # who asked was killed
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os._exit(0)


def _become(asked: dict, streams: list[int]) -> None:
    """What the fork does before its code: it is as if Python had been started with these words."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in asked["ignored"] else usual)
    for stream, given in enumerate(streams):
        os.dup2(given, stream)
        os.close(given)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(LONG)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in paths if path and path not in sys.path]
    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():  # is read when PyTorch is imported
        sys.modules["torch"].set_num_threads(int(threads))


def _do(how: str, *words: str) -> None:
    """As ``python HOW WORD..``."""
    if not sys.flags.safe_path:
        sys.path[0] = {"-c": "", "-m": os.getcwd()}.get(how, str(Path(how).resolve().parent))
    sys.argv = [how, *words[how in ("-c", "-m") :]]
    if how == "-c":
        exec(compile(words[0], "<code of a test>", "exec"), {"__name__": "__main__"})
    elif how == "-m":
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    import mga.cli  # noqa: F401
    import mga_kernels.engine.model
    import mga_kernels.images
    import mga_kernels.runtimes.cpu.choose  # noqa: F401

    _place, sys.executable = sys.argv[1:]
    if (_asked := _serve(_place)) is not None:
        _do(*_asked["words"])
