"""What commands say about a checkpoint beside their results."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager

from mga_kernels.errors import CheckpointNote

from .lines import one_line
from .said import heard


def shown_notes() -> AbstractContextManager[None]:
    """Until the block ends, a CheckpointNote is a line on stderr, each once; other warnings are what they were."""
    said: set[str] = set()

    def show(text: str) -> None:
        if text not in said:
            said.add(text)
            print(f"mga: note: {one_line(text)}", file=sys.stderr)

    return heard(CheckpointNote, show)
