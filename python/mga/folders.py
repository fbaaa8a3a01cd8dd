"""Which files of a folder are images, and what becomes of a command when one of them fails."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from mga_kernels.errors import ImageError, MGAError
from mga_kernels.images import suffixes

image_suffixes = cache(suffixes)


def list_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """(images, other files) directly inside ``folder``, by name. Hidden files and subfolders are in neither.

    What is named as an image counts as one, also where it cannot be read, such as a link that leads nowhere or a pipe:
    reading it says so, and nothing is passed over in silence.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name[0] != "." and not _is_folder(entry))
    except FileNotFoundError:
        raise ImageError(f"the folder {folder} does not exist") from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise ImageError(f"{folder} cannot be read as a folder ({reason})") from problem
    images: list[Path] = []
    others: list[Path] = []
    for name in names:
        (images if os.path.splitext(name)[1].lower() in image_suffixes() else others).append(folder / name)
    return images, others


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that cannot be followed
        return False


class Failures:
    """Files that failed: each is a line on stderr, and the others go on. ``lines``: what was said of which file."""

    def __init__(self) -> None:
        self.lines: list[tuple[Path, str]] = []

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

    def add(self, file: Path, error: Exception) -> None:
        self.lines.append((file, line_about(file, error)))
        if os.environ.get("MGA_DEBUG") == "1":
            traceback.print_exception(error)
        print(f"mga: {self.lines[-1][1]}", file=sys.stderr)

    def exit_code(self, total: int) -> int:
        """0, or 1 after a line about how many of ``total`` images failed."""
        if self.count and total > 1:
            print(f"mga: {self.count} of {total} images failed", file=sys.stderr)
        return 1 if self.count else 0


def line_about(file: Path, error: Exception) -> str:
    """What to say of a ``file`` that failed with ``error``."""
    if not isinstance(error, MGAError):
        kind, text = type(error).__name__, " ".join(str(error).split())
        if isinstance(error, MemoryError):
            return f"{file}: memory ran out ({text or kind}); use a smaller image or close other programs"
        what = f"{kind}: {text}" if text else kind
        return f"{file} failed unexpectedly ({what}); the environment MGA_DEBUG=1 shows where"
    return str(error) if str(file) in str(error) else f"{file}: {error}"
