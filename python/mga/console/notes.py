"""What commands say about a checkpoint beside their results."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mga_kernels.errors import CheckpointNote

from .lines import one_line


@contextmanager
def shown_notes() -> Iterator[None]:
    """Until the block ends, a CheckpointNote is a line on stderr, each once; other warnings are what they were."""
    said = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", CheckpointNote)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if not issubclass(category, CheckpointNote):
                usual(message, category, *rest, **more)
            elif str(message) not in said:
                said.add(str(message))
                print(f"mga: note: {one_line(str(message))}", file=sys.stderr)

        warnings.showwarning = show  # type: ignore[assignment]
        yield
