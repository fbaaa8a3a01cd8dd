"""The ``mga`` program: its modules are imported when Ctrl-C ends it at once, since there is nothing to clean up yet.

An import that is interrupted says what is not so: a screen of code, or that NumPy is not installed as it should be.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ends_at_once() -> Iterator[None]:
    """Within the block Ctrl-C ends the process, without a word, unless the program around it sees to that signal."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> int:
    """``cli.main``, the first thing in its process."""
    with ends_at_once():
        from .cli import main as command
    return command()
