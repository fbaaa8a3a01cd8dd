"""A shipped whole network that runs plain photographs on the CPU without PyTorch.

An earlier run has kept it as a program (``alone.program``), which depends on the package's files, the model's,
PyTorch's version and the kernels that run here. Whatever is not plain, the engine does, which is loaded then.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..catalogue import SHIPPED
from ..errors import BackendError, InputError
from ..images import Photo
from ..system.kept import cache_file
from ..system.memory import RESERVE, available_memory
from .result import Result

if TYPE_CHECKING:
    from ..alone.program import Program
    from ..alone.run import Run
    from .model import MaskGuidedSR

FOLDER = "programs"  # of the cache
SMALLEST = 4  # LR pixels; sides below that get a border (networks.tiny)
FORCING = ("MGA_BACKEND", "MGA_NETWORKS")  # variables by which PyTorch would do something else
# Of NVIDIA's and AMD's drivers on Linux, and of the one that Windows lends to it. Without them PyTorch finds no GPU.
DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/kfd", "/dev/dxg")
PACKAGE = Path(__file__).resolve().parent.parent


class Quick:
    """``MaskGuidedSR`` as commands use it; what it cannot do itself, ``load``, called once, does."""

    def __init__(self, program: Program, load: Callable[[], MaskGuidedSR]):
        self.program, self.scale = program, program.scale
        self._load = load
        self._model: MaskGuidedSR | None = None
        self._last: Run | None = None  # of the last size of image

    def upscale(self, image: Photo, *, return_result: bool = True) -> Result:
        """``MaskGuidedSR.upscale`` of a photograph."""
        made = self._made(image)
        if made is None:
            return self._engine().upscale(image, return_result=True)
        result = image.upscaled(made)
        return Result(result, None, list(result.notes))

    def _made(self, photo: Photo) -> np.ndarray | None:
        from ..alone.run import Run

        (width, height), last = photo.size, self._last
        if self._model is not None or photo.deep or min(width, height) < max(SMALLEST, self.program.smallest):
            return None
        if last is None or (last.height, last.width) != (height, width):
            last, self._last = Run(self.program, height, width), None
            if last.bytes > (1 - RESERVE) * available_memory():
                return None  # the engine cuts it into tiles, or says what is missing
        try:
            made = last(photo.rgb)
        except MemoryError:
            return None
        self._last = last
        return made

    def _engine(self) -> MaskGuidedSR:
        if self._model is None:
            self._last, self._model = None, self._load()
        return self._model

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._engine(), name)


def find(name: str, device: str, load: Callable[[], MaskGuidedSR]) -> Quick | None:
    """The shipped model of this name as an earlier run has kept it; None where there is none that can be used."""
    place = _place(name)
    if place is None:
        return None
    from ..alone.program import read

    program = read(*place)
    return Quick(program, load) if program is not None and _on_cpu(program, device) else None


def _on_cpu(program: Program, device: str) -> bool:
    """Whether PyTorch would run it on the CPU, too."""
    if device == "cpu" or not program.gpu:
        return True
    return sys.platform == "linux" and not any(map(os.path.exists, DEVICES))


def keep(name: str, device: str, model: MaskGuidedSR) -> None:
    """Keep a shipped model for ``find``, if it can be; where nothing can be written it runs by PyTorch each time."""
    place = _place(name)
    if place is None:
        return
    from ..alone.program import write
    from ..runtimes.cpu.programs import program_of

    program = program_of(model._runner.planner)
    if program is not None and _on_cpu(program, device):
        try:
            write(*place, program)
        except (InputError, OSError):
            pass


def _place(name: str) -> tuple[Path, dict[str, object]] | None:
    """The file of a model's program, and what it depends on."""
    file = SHIPPED / f"{name}.safetensors"
    if any(os.environ.get(variable) for variable in FORCING) or not file.is_file():
        return None
    try:
        from ..alone.run import kernels

        names = kernels()
    except (ImportError, BackendError):  # not built, or a wish that cannot be met, which the engine says
        return None
    torch = find_spec("torch")
    version = None if torch is None or torch.origin is None else Path(torch.origin).with_name("version.py")
    path = cache_file(FOLDER)
    if version is None or path is None:
        return None
    found = file.stat()
    try:
        text = version.read_text()
    except OSError:
        return None
    key: dict[str, object] = {
        "package": _package(),
        "model": [found.st_size, found.st_mtime_ns],
        "torch": text,
        "kernels": names,
    }
    return path / f"{name}-{names}.mga", key


def _package() -> list[int]:
    """What changes with the files of the package: their number, and a checksum of their names, sizes and times."""
    files = sorted(_files(str(PACKAGE)))
    return [len(files), zlib.crc32(repr(files).encode())]


def _files(folder: str) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if entry.name != "__pycache__":
                    yield from _files(entry.path)
            elif entry.name.endswith((".py", ".so")):
                found = entry.stat()
                yield entry.path, found.st_size, found.st_mtime_ns
