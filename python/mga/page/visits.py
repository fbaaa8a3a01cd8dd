"""What a page of ``mga ui`` holds for whoever looks at it: their pictures, what is asked of them, and the results."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mga_kernels.errors import InputError
from mga_kernels.images.opening import open_image, opened
from mga_kernels.system.marks import marked

from ..console.lines import one_line

FORGOTTEN = 1800.0  # seconds after which a page that asks for nothing is gone; a hidden one asks once a minute
_PREFIX = "mga-ui-"
_removing = threading.Lock()
_LONGEST = 150  # characters of a name; that of its result may have a few more bytes


@dataclass(frozen=True)
class Limits:
    """What a page takes: ``bytes`` of a file, ``pixels`` of an image or its result, ``files`` at a time."""

    bytes: int
    pixels: int
    files: int = 500

    def check_pixels(self, name: str, width: int, height: int) -> None:
        """InputError where an image, or what it would become, has more pixels than are taken."""
        if width * height > self.pixels:
            raise InputError(
                f"{name} has {width}x{height} pixels, {width * height / 1e6:.0f} million, and this page goes up to "
                f"{self.pixels / 1e6:g}; choose a smaller size, or start `mga ui` with --max-megapixels"
            )


@dataclass
class Picture:
    """A file that was sent: ``name`` as its owner calls it, ``size`` (width, height) as it is stored."""

    id: str
    name: str
    folder: Path
    size: tuple[int, int]

    @property
    def path(self) -> Path:
        return self.folder / self.name


@dataclass
class Task:
    """A picture and the options of ``mga upscale`` that are asked for it, and what became of it.

    ``state`` is "waiting", "working", "done" or "failed". ``error``: why it failed, a sentence. ``how``: what made the
    result. ``seconds`` of reading, computing and writing. ``mask``: a picture of the cells that were refined.
    """

    id: str
    picture: Picture
    options: tuple[str, ...]
    with_mask: bool
    state: str = "waiting"
    error: str = ""
    how: str = ""
    seconds: float = 0.0
    started: float = 0.0
    size: tuple[int, int] = (0, 0)
    notes: Sequence[str] = ()
    result: Path | None = None
    mask: Path | None = None

    @property
    def folder(self) -> Path:
        return self.picture.folder / self.id


@dataclass
class Visit:
    """One page in one browser; ``seen``: when it last asked for something."""

    id: str
    folder: Path
    seen: float = field(default_factory=time.monotonic)
    gone: bool = False
    pictures: dict[str, Picture] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)

    def room(self, name: str) -> tuple[str, Path]:
        """(id, path) for a file called so that is to be received; nothing else is in the folder of the path."""
        one = secrets.token_urlsafe(12)
        folder = self.folder / one
        folder.mkdir()
        return one, folder / file_name(name)

    def add(self, id: str, path: Path, limits: Limits) -> Picture:
        """The picture that was received there; ImageError or InputError where it is none that can be worked on."""
        with opened(path) as stream:
            size = open_image(stream, path.name).size
        limits.check_pixels(path.name, *size)
        picture = self.pictures[id] = Picture(id, path.name, path.parent, size)
        return picture

    def ask(self, picture: Picture, options: Sequence[str], with_mask: bool) -> Task:
        task = Task(secrets.token_urlsafe(12), picture, tuple(options), with_mask)
        self.tasks[task.id] = task
        return task

    def remove(self) -> None:
        """One thread at a time: two that remove the folders of one another can keep a processor busy for minutes."""
        self.gone = True
        with _removing:
            shutil.rmtree(self.folder, ignore_errors=True)


class Visits:
    """All pages that are open, and the folder that holds their files until they are closed."""

    def __init__(self) -> None:
        remove_left()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._mark = open(self.folder / "mark", "xb")
        marked(self._mark.fileno())
        self._open: dict[str, Visit] = {}

    def new(self) -> Visit:
        id = secrets.token_urlsafe(12)
        visit = self._open[id] = Visit(id, self.folder / id)
        visit.folder.mkdir()
        return visit

    def get(self, id: str) -> Visit:
        """The one of that name, which is seen by this; InputError where it is gone."""
        visit = self._open.get(id)
        if visit is None:
            raise InputError("this page was left for so long that its pictures are gone; load it anew")
        visit.seen = time.monotonic()
        return visit

    def leave(self, id: str) -> None:
        if (visit := self._open.pop(id, None)) is not None:
            visit.remove()

    def forget(self) -> None:
        """Remove those that nobody looks at any more."""
        for visit in list(self._open.values()):
            if time.monotonic() - visit.seen > FORGOTTEN:
                self.leave(visit.id)

    def close(self) -> None:
        for id in list(self._open):
            self.leave(id)
        self._mark.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_left() -> None:
    """Remove the folders of pages whose process was killed: those that carry no mark of one at work."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError), open(folder / "mark", "rb") as mark:
            if os.fstat(mark.fileno()).st_uid == _user() and marked(mark.fileno()):
                shutil.rmtree(folder, ignore_errors=True)


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def file_name(text: str) -> str:
    """The last part of a name that a browser gave, as a file can be called everywhere."""
    last = re.split(r"[/\\]", text)[-1].encode("utf-8", "replace").decode()
    stem, suffix = os.path.splitext(re.sub(r'[<>:"|?*]', "_", one_line(last).replace("\\", "_")).strip())
    suffix = suffix[:10]
    while len(f"{stem}{suffix}".encode()) > _LONGEST:
        stem = stem[:-1]
    return f"{stem}{suffix}" if stem.strip(". ") else "image"
