"""The errors that this package raises on purpose. Each message names the operation, what it got and the remedy."""

from __future__ import annotations


class MGAError(Exception):
    """Base class: catch it to catch every error that the package reports to its user."""


class InputError(MGAError, ValueError):
    """An argument, tensor or image is not what the operation takes."""


class ImageError(InputError):
    """An image file is missing, damaged, of a kind that cannot be kept without loss, or cannot be written."""


class CheckpointError(MGAError, ValueError):
    """A weights file is missing, damaged, unsafe to read, or belongs to another network."""


class CheckpointNote(UserWarning):
    """Something about a weights file that it leaves open was concluded, such as its scale from its name."""


class BackendError(MGAError, RuntimeError):
    """The backend that was asked for cannot run here."""


class OutOfMemoryError(MGAError, MemoryError):
    """The image needs more memory than there is."""


def reason_of(problem: BaseException) -> str:
    """What an exception of somebody else's says, in one line; of a file what the system says, without its name."""
    text = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
    return " ".join(text.split())
