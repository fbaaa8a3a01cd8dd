"""Warnings by the thread that they were raised in: what is said while one image is read is not about another."""

from __future__ import annotations

import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def said_by_thread() -> Iterator[Callable[[], list[str]]]:
    """A function that returns what UserWarnings said in its thread since it was last called there.

    Filters of warnings and how they are shown belong to the process, so this is entered before there are threads, by
    one of them, and left when they are gone. Other warnings are shown as they were before.
    """
    said: dict[int, list[str]] = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        show = warnings.showwarning

        def keep(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, UserWarning):
                said[threading.get_ident()].append(" ".join(str(message).split()))
            else:
                show(message, category, *place, **more)

        warnings.showwarning = keep
        yield lambda: said.pop(threading.get_ident(), [])
