"""Marks on open files and folders, by which processes on one machine keep out of each other's way."""

from __future__ import annotations


def marked(file: int, wait: bool = False) -> bool | None:
    """Mark an open file or folder until it is closed, or its process ends, however it ends.

    False where another process has marked it, for which ``wait`` waits instead; None where the system or the disk has
    no such marks.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True
