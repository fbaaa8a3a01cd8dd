"""What the command owes to the process around it: signals that end it cleanly, streams that cannot break the work."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TextIO

from mga_kernels.errors import reason_of

_ENDING = ("SIGTERM", "SIGHUP")


class Stopped(KeyboardInterrupt):
    """A signal that ends the process, at the place where Ctrl-C would be a KeyboardInterrupt."""

    def __init__(self, number: int):
        super().__init__()
        self.signal = signal.Signals(number)


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """What shells take for a process that such a signal ended: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + (interrupt.signal if isinstance(interrupt, Stopped) else signal.SIGINT)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP are the exception Stopped, so that it cleans up as it does for Ctrl-C.

    A signal that is ignored, as after ``nohup``, or that the program around the command handles stays as it is.
    """
    before = {}
    try:
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            for name in _ENDING:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                    before[number] = signal.signal(number, _stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)


class Stream:
    """A text stream for what a command says. What goes wrong with it is kept as ``fault``, and the work goes on.

    Characters that its encoding lacks, such as those of a name that is no text, are written as \\x.. and \\u.... .
    After the first fault, a reader that left or a full disk, nothing more is written.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.fault: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self.fault is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except (OSError, ValueError) as problem:  # ValueError: it has been closed
                self._give_up(problem)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self.fault is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as problem:
                self._give_up(problem)

    def write_bytes(self, data: bytes | memoryview) -> None:
        """As they are, past the encoding; what was written before as text has been flushed."""
        if self.fault is None:
            try:
                self._stream.buffer.write(data)
                self._stream.buffer.flush()
            except (OSError, ValueError) as problem:
                self._give_up(problem)

    def _give_up(self, problem: Exception) -> None:
        self.fault = problem
        try:  # Python tries once more to write what is left when it ends, and that must not fail again
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        except (OSError, ValueError, AttributeError, io.UnsupportedOperation):
            pass


@contextmanager
def lasting_streams() -> Iterator[Stream | None]:
    """Within the block ``sys.stdout`` and ``sys.stderr`` are each a Stream, the first of which it gives."""
    _open_standard_files()
    before = sys.stdout, sys.stderr
    out, err = (None if stream is None else Stream(stream) for stream in before)
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    try:
        yield out
    finally:
        for stream in (out, err):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


def _open_standard_files() -> None:
    """Where the caller has closed one of them, a file that is opened for writing would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def lost_output(fault: Exception, code: int) -> int:
    """The exit code of a command that came to ``code`` when what it said could not be written; says so, too.

    Of a reader that wanted no more, such as ``head``, nothing is said, and the code is that of a process that it ended.
    """
    if isinstance(fault, OSError) and fault.errno == errno.EPIPE:
        return code or 141
    print(f"mga: the output of the command could not be written: {reason_of(fault)}", file=sys.stderr)
    return code or 1
