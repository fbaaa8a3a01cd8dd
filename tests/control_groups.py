"""A made-up /proc and tree of control groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_groups(folder: Path, group: str, files: Mapping[str, str]) -> tuple[Path, Path]:
    """``group``: what /proc/self/cgroup says; ``files`` of the groups by their paths. Returns both roots."""
    proc, groups = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self/cgroup").write_text(group)
    for name, text in files.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, groups
