"""The file of figures: rows as they were measured, each with what it depends on, of which none is ever lost.

A row is of today where its ``key`` (content of the model and of the images, settings, machine) and its ``code`` are
those of the row that is asked for. Rows of other suites, models or machines stay in the file, behind those of the suite
that was run last, and so do rows that other processes have written meanwhile. A row of other code stays until the same
is measured anew. Nothing of another code counts as measured; ``tables`` makes tables of it on demand.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mga_kernels.errors import InputError
from mga_kernels.system.marks import marked
from mga_kernels.version import code_version

from ...files.records import Record, to_json, write_text
from .config import WAYS, Suite
from .markdown import to_markdown

Rows = list[Record]
MEASURING = (  # the code that figures come from
    "mga_kernels",
    "mga.complexity.counting",
    *(f"mga.evaluation.{name}" for name in ("masks", "metrics", "models", "resize", "testsets")),
    *("mga.evaluation.suite.runners", "mga.evaluation.suite.table"),
)
SETTINGS = ("scale", "size", "seconds", "images")  # of a suite, without which its figures cannot be read


def code_of_figures() -> str:
    return code_version(*MEASURING)


class Store:
    """The rows in ``path``, or, where that is None, only those of this run."""

    def __init__(self, path: Path | None):
        self.path, self.code = path, code_of_figures()
        rows = [] if path is None else read(path)
        self._known = {row["key"]: row for row in rows if row.get("code") == self.code}
        if older := len(rows) - len(self._known):
            print(
                f"note: {older} of {len(rows)} rows in {path} were measured by other code and do not count; "
                f"`mga evaluate {path}` makes a table of them as they are",
                file=sys.stderr,
            )

    def find(self, key: str) -> Record | None:
        """The row that today's code has measured."""
        return self._known.get(key)

    def write(self, rows: Rows) -> None:
        """``rows`` first, then what else the file holds."""
        if self.path is None:
            return
        with _alone(self.path.parent):
            rows = merged(rows, read(self.path))
            write_text(self.path, to_json({"rows": rows}, levels=6))


def merged(rows: Rows, found: Rows) -> Rows:
    """``rows``, and those of ``found`` that they do not replace: of the same key, or of old files, of the same name."""
    keys, names = {row["key"] for row in rows}, [_name(row) for row in rows]
    old = [row for row in found if row["key"] not in keys]
    return [*rows, *(row for row in old if "code" in row or _name(row) not in names)]


def _name(row: Record) -> tuple[Any, ...]:
    """What a row says that it is of."""
    names = ("model", "file", "variant", "k", "fraction", "selection", "seed")
    settings = (row["settings"].get(name) for name in SETTINGS)
    return *(row.get(name) for name in names), *settings, tuple(row["sets"])


def newest(rows: Rows) -> Rows:
    """Of rows of one name, which other weights, machines or images set apart, the one that was asked for last."""
    first: dict[tuple[Any, ...], Record] = {}
    for row in rows:
        first.setdefault(_name(row), row)
    return list(first.values())


def read(path: Path) -> Rows:
    """The rows of a file, none where there is no file; InputError where it is another one, which stays as it is."""
    try:
        record = json.loads(path.read_text())
        common = {name: record[name] for name in SETTINGS if name in record}  # files of older code say it once
        rows = [{"settings": common} | row for row in record["rows"]]
        for row in rows:
            row["key"], row["sets"].items(), row["settings"]["scale"]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"evaluate: {path} is no file of figures to go on with ({error}); remove it or name another"
        ) from None
    return rows


def is_store(path: Path) -> bool:
    """Whether there is a file of rows."""
    try:
        return path.exists() and bool(read(path))
    except InputError:
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Other processes that would write in this way into the folder wait until the block ends."""
    with ExitStack() as held:
        with suppress(OSError):  # Windows opens no folders, and has no such marks
            descriptor = os.open(folder, os.O_RDONLY)
            held.callback(os.close, descriptor)
            marked(descriptor, wait=True)
        yield


def tables(path: Path) -> str:
    """The rows of a file as Markdown, whatever measured them: a table for each choice of settings and sets."""
    rows, code = newest(read(path)), code_of_figures()
    if not rows:
        raise InputError(f"evaluate: {path} holds no rows; a suite that is run with --json {path} writes them")
    parts = []
    for settings, part in _alike(rows):
        suite = Suite(
            settings["scale"],
            size=settings.get("size", "3840x2160"),
            seconds=settings.get("seconds", WAYS[0]),
            images=settings.get("images", WAYS[0]),
        )
        other = sum(row.get("code") != code for row in part)
        text = to_markdown(part, suite, settings.get("title", f"Evaluation, x{suite.scale}"))
        note = f"\nOf these {len(part)} rows {other} were measured by other code than today's.\n" if other else ""
        parts.append(text + note)
    return "\n".join(parts)


def _alike(rows: Sequence[Record]) -> list[tuple[Record, Rows]]:
    """(settings, rows) of those that fit into one table, in the order of the file."""
    groups: dict[str, tuple[Record, Rows]] = {}
    for row in rows:
        images = {name: len(one["images"]) for name, one in row["sets"].items()}
        groups.setdefault(json.dumps([row["settings"], images]), (row["settings"], []))[1].append(row)
    return list(groups.values())
