"""What is shown on the screen, or goes into a log in its place."""

from __future__ import annotations

import os

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_USUAL = 80  # columns, where nothing is known


def screen(*, stderr: bool = False, highlight: bool = True, markup: bool = True, soft_wrap: bool = False) -> Console:
    """rich's Console. Where the environment says that there are 0 columns, it has the usual number.

    Some programs that are no terminals set COLUMNS=0 for what they start; rich would then print nothing at all.
    """
    columns = os.environ.get("COLUMNS", "").strip()
    width = _USUAL if columns.isdigit() and int(columns) == 0 else None
    return Console(width=width, stderr=stderr, highlight=highlight, markup=markup, soft_wrap=soft_wrap)


def progress(console: Console, redirect_stderr: bool = True) -> Progress:
    """rich's bar of a number of things that are done one by one, which is gone at the end; on a terminal only."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    shown = console.is_terminal
    return Progress(*columns, console=console, disable=not shown, transient=True, redirect_stderr=redirect_stderr)
