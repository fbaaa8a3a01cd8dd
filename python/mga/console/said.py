"""Warnings by the thread that they were raised in: what is said while one image is read is not about another."""

from __future__ import annotations

import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def heard(category: type[Warning], keep: Callable[[str], object]) -> Iterator[None]:
    """Until the block ends ``keep`` is given what warnings of ``category`` say; others are shown as they were before.

    Filters of warnings and how they are shown belong to the process, so this is entered before there are threads, by
    one of them, and left when they are gone.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", category)
        usual = warnings.showwarning

        def show(message: Warning | str, kind: type[Warning], *place: object, **more: object) -> None:
            if issubclass(kind, category):
                keep(str(message))
            else:
                usual(message, kind, *place, **more)  # type: ignore[arg-type]

        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def said_by_thread() -> Iterator[Callable[[], list[str]]]:
    """A function that returns what UserWarnings said in its thread since it was last called there."""
    said: dict[int, list[str]] = defaultdict(list)
    with heard(UserWarning, lambda text: said[threading.get_ident()].append(" ".join(text.split()))):
        yield lambda: said.pop(threading.get_ident(), [])
