"""What becomes of a command when one of its files fails: a line, and the others go on."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mga_kernels.errors import MGAError

from .debug import debugging
from .lines import one_line


class Failures:
    """Files that failed: each is a line on stderr, and the others go on.

    ``lines``: what was said of which file; ``entries``: the same files as ``files.lists.write_list`` takes them.
    """

    def __init__(self) -> None:
        self.lines: list[tuple[Path, str]] = []
        self.entries: list[tuple[Path, Path]] = []

    @property
    def count(self) -> int:
        return len(self.lines)

    @contextmanager
    def of(self, file: Path) -> Iterator[None]:
        """Any Exception of the block is one of ``file``, and ends here."""
        try:
            yield
        except Exception as error:
            self.add(file, error)

    def add(self, file: Path, error: Exception, behind: Path = Path()) -> None:
        """``behind``: the part of the name that results keep, where they keep more than the last."""
        self.entries.append((file, behind))
        self.lines.append((file, line_about(file, error)))
        if debugging():
            traceback.print_exception(error)
        print(f"mga: {one_line(self.lines[-1][1])}", file=sys.stderr)

    def exit_code(self, total: int) -> int:
        """0, or 1 after a line about how many of ``total`` images failed."""
        if self.count and total > 1:
            print(f"mga: {self.count} of {total} images failed", file=sys.stderr)
        return 1 if self.count else 0


def unexpected(what: str, error: Exception) -> str:
    """What to say where ``what``, a file or a command, failed with an error that nobody has foreseen."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    told = f"{kind}: {text}" if text else kind
    return f"{what} failed unexpectedly ({told}); the environment MGA_DEBUG=1 shows where"


def line_about(file: Path, error: Exception) -> str:
    """What to say of a ``file`` that failed with ``error``."""
    if not isinstance(error, MGAError):
        kind, text = type(error).__name__, " ".join(str(error).split())
        if isinstance(error, MemoryError):
            return f"{file}: memory ran out ({text or kind}); use a smaller image or close other programs"
        return unexpected(str(file), error)
    return str(error) if str(file) in str(error) else f"{file}: {error}"
