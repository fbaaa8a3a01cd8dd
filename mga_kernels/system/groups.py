"""Control groups of Linux, which limit what a process and its children may take."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def control_groups(controller: str, proc: Path, cgroup: Path) -> Iterator[Path]:
    """Folders of the groups of this process in which ``controller`` may have limits, up to the hierarchy's root.

    Of version 2 and of version 1, whose files have other names.
    """
    for line in text_of(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _up_from(cgroup, path)
        elif controller in controllers.split(","):
            yield from _up_from(cgroup / controller, path)


def _up_from(root: Path, path: str) -> Iterator[Path]:
    group = root / path.strip("/")
    # Inside a container the path is often the host's and does not exist below the mount; the mount is the group then.
    for folder in [group, *group.parents] if group.is_dir() else [root]:
        if folder != root and root not in folder.parents:
            break
        yield folder


def text_of(file: Path) -> str:
    """What a small file of the system holds; nothing where there is none."""
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
