"""Imports and the end of a command, without Python's collector of reference cycles.

PyTorch alone makes half a million objects that stay until the end. The collector looks through them again and again
while they are made, and several times when the process ends, and finds nothing: a third of the processor's time of a
command with a small image.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

atexit.register(gc.freeze)


@contextmanager
def loading() -> Iterator[None]:
    """For imports: within the block nothing is collected, and what came with modules is not looked at ever again."""
    if not gc.isenabled():  # by a block around this one, or by the program around the command
        yield
        return
    modules = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            gc.freeze()
        gc.enable()
