"""What a caller has set for the whole of PyTorch must not change what is computed here, nor stick to the results."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from .system.threads import Lock, put_right_after_fork

AUTOCASTS = ("cpu", "cuda")
CPU = torch.device("cpu")


class _Float32:
    """Within it, of any number of threads, cuDNN multiplies float32 as float32.

    Unless it is told otherwise it rounds to TF32, which has the ten bits of float16; that setting is the process's, so
    the first thread that enters makes it and the last that leaves takes it back.
    """

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), Counter[int]()
        self._take_back: Callable[[], None] = lambda: None
        put_right_after_fork(self)

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._take_back = _forbid_tf32()
            self._inside[threading.get_ident()] += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._leave(threading.get_ident(), 1)

    def holds(self) -> bool:
        """Whether the calling thread is inside."""
        return threading.get_ident() in self._inside

    def _leave(self, thread: int, times: int) -> None:
        self._inside[thread] -= times
        if not self._inside[thread]:
            del self._inside[thread]
        if not self._inside:
            self._take_back()

    def after_fork(self) -> None:
        """Other threads, which a child does not have, leave."""
        for thread in set(self._inside) - {threading.get_ident()}:
            self._leave(thread, self._inside[thread])


def _forbid_tf32() -> Callable[[], None]:
    """Make the setting; returns what takes it back."""
    cudnn: Any = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except RuntimeError:  # who has set precisions by operator may not ask so
        precision = cudnn.conv.fp32_precision
        cudnn.conv.fp32_precision = "ieee"
        return lambda: setattr(cudnn.conv, "fp32_precision", precision)
    cudnn.allow_tf32 = False
    return lambda: setattr(cudnn, "allow_tf32", before)


exact_float32 = _Float32()


def _default_device() -> torch.device:
    """``torch.get_default_device`` copies from the host to tell a device's number, which no graph may hold."""
    return torch.empty(0).device


@contextmanager
def ordinary() -> Iterator[None]:
    """Within it, or a function decorated with it, tensors are ordinary ones and no gradient is recorded.

    Results can be used in place, in a loss and by other threads, also where the caller is in ``inference_mode``, and
    what a plan keeps from one image to the next does not depend on the mode of the first. Autocast and a default device
    of the caller have no effect, and float32 is not rounded to TF32. A default dtype cannot be undone for one thread
    alone, so code that runs within this names the dtype of all that it makes.
    """
    changed = torch.is_grad_enabled() or torch.is_inference_mode_enabled()
    changed = changed or any(map(torch.is_autocast_enabled, AUTOCASTS)) or _default_device() != CPU
    if exact_float32.holds() and not changed:  # an image is so many times within it
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in AUTOCASTS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if _default_device() != CPU:
            stack.enter_context(CPU)
        stack.enter_context(exact_float32)
        yield
