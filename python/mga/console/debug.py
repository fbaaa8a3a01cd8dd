"""MGA_DEBUG=1 in the environment: errors are shown with the place where they were raised."""

from __future__ import annotations

import os


def debugging() -> bool:
    return os.environ.get("MGA_DEBUG") == "1"
