"""What a plan is: how photographs of one size run through one network, from bytes to bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..modes import ordinary
from ..networks import Config
from ..networks.amount import above
from ..networks.detail import detail
from ..networks.interface import padded_size
from ..networks.layers import Place
from ..ops import output_to_image, paste_patches_, select_patches
from ..system.allocator import empty_in_huge_pages

CELLS = "a model that refines cells by {} makes a frame in one piece"  # why no parts of one are run


class Parts(Protocol):
    """Runs a plan's whole network for the parts of an image that are not what they were in the one before.

    ``keeps``: of the parts that were chosen, whether what layers made is kept.
    """

    keeps: bool

    @property
    def kept(self) -> bool:
        """Whether the memory to keep it in has been taken, so that no room is needed any more."""

    def choose(self, changed: np.ndarray, room: int) -> float:
        """``changed``, bool (H, W): those parts, of which there are some. Returns the share of the work they are.

        ``room``: bytes that may be taken to keep what layers made, so that it is a smaller one; unless it is ``kept``.
        """

    def run(self, image: Tensor, before: np.ndarray) -> tuple[np.ndarray, bool]:
        """The result of ``image``, bit by bit, from that of the image before, uint8 (sH, sW, 3).

        And whether all of it was made, since nothing was kept of the image ``before`` is the result of.
        """


class Begun(Protocol):
    """An image that a plan computes while the host goes on."""

    def done(self) -> bool:
        """Whether ``result`` has nothing to wait for."""

    def result(self) -> tuple[Tensor, bool, int]:
        """What ``run`` returns, whether all values were finite, and how many cells were refined."""


class Plan(ABC):
    """Buffers and calls for LR images of ``height`` x ``width`` and at most ``capacity`` refined cells.

    Of a network whose cells are refined as patches it is a ``PatchPlan``, which can do more.

    ``coarse``, ``select`` and ``refine`` are the steps of ``run``, in this order; a plan keeps the coarse feature from
    one to the next, so it serves one image at a time. Images and pictures are (height, width, 3) of type ``pixel``:
    uint8, or float32 in [0, 1]. A canvas is a picture of all cells, (s p Hp, s p Wp, 3).

    ``threshold``: only cells whose mask value is larger are refined. ``free``: cells are chosen by what is seen in the
    coarse image (``networks.detail``), not by the network's mask. ``finite``, on the plan's device: whether
    all values since ``start`` were finite before they became bytes; None where a plan does not look.

    ``place``: where the image that ``coarse`` gets is a tile of a larger one, for plans whose planner ``takes_place``.
    Of a whole network the coarse image is all, and the other steps, which it does not have, are not called.
    ``parts`` says into what an image is cut, if it is; ``bytes`` is what a plan takes, where that is known.
    """

    place: Place | None = None
    parts = ""
    bytes = 0
    pixel = torch.uint8
    threshold: float | None = None
    free = False
    shown: Tensor | None = None
    finite: Tensor | None = None
    _chosen: Tensor | None = None

    def __init__(self, config: Config, height: int, width: int, capacity: int):
        self.config, self.height, self.width, self.capacity = config, height, width, capacity
        self.padded = padded_size(config, height, width)
        self._canvas: Tensor | None = None

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        p = self.config.patch_size
        return self.padded[0] // p, self.padded[1] // p

    @ordinary()
    def start(self) -> None:
        """Called before the steps of an image: what the one before led to is forgotten."""
        self._chosen = None
        if self.finite is not None:
            self.finite.fill_(True)

    def warm(self, dense: bool = False) -> None:  # noqa: B027
        """Do what else the first image would wait for, of -M with all that there is room for, or of -D."""

    @abstractmethod
    def coarse(self, image: Tensor, out: Tensor | None) -> None:
        """Compute the coarse feature of ``image`` (H, W, 3), and write its coarse image to the top left of ``out``."""

    @abstractmethod
    def select(self, k: int) -> tuple[Tensor, Tensor]:
        """Mask float32 (1, Hp, Wp) and the indices int32 (1, K) of the cells to refine, of the last ``coarse``."""

    @abstractmethod
    def refine(self, indices: Tensor, out: Tensor) -> None:
        """Refine the cells at ``indices`` (1, n), n <= ``capacity``, in the picture ``out`` (s p Hp, s p Wp, 3)."""

    @abstractmethod
    def decomposed(self, out: Tensor) -> None:
        """Write the Refine-Net over the whole of the last coarse feature (-D) to the top left of ``out``."""

    def in_parts(self) -> Parts | str:
        """What runs parts of an image, or why nothing does."""
        return "parts of a frame run in convolutions of our own in float32 only, on a CPU and not in tiles"

    def grid_of(self, indices: Tensor) -> Tensor:
        """bool (rows, columns): the cells at ``indices`` (1, n), of which -1 is none."""
        rows, columns = self.cells
        # Index -1 is the last place, behind them all: how many are none is not known without waiting for a device.
        cells = torch.zeros(rows * columns + 1, dtype=torch.bool, device=indices.device)
        cells.index_fill_(0, indices.flatten().long(), True)
        return cells[:-1].view(rows, columns)

    def show(self, image: Tensor, out: Tensor | None) -> None:
        """``coarse``; cells may be chosen by the coarse image in ``out``, until something is pasted into it."""
        self.shown = out
        self.coarse(image, out)

    def masking(self, k: int) -> tuple[Tensor, Tensor]:
        """``select``, or the same by the coarse image."""
        return self.by_detail(k) if self.free else self.select(k)

    def by_detail(self, k: int) -> tuple[Tensor, Tensor]:
        """What ``select`` returns, by the detail of the coarse image that was shown."""
        assert self.shown is not None
        picture = self.crop(self.shown)[None]
        if picture.dtype != torch.uint8:
            picture = output_to_image(picture.permute(0, 3, 1, 2), *picture.shape[1:3])
        seen = detail(picture, self.config.patch_size * self.config.scale, self.config.halos_shared)
        rows, columns = self.cells  # more than there are where the network takes no image so small
        mask = F.pad(seen, (0, columns - seen.shape[2], 0, rows - seen.shape[1]))
        return mask, select_patches(mask, k, self.config.selection)

    def choose(self, k: int) -> tuple[Tensor, Tensor]:
        """``masking``, then ``threshold``: (1, n), n <= k; on other devices than a CPU n = k, with -1 for no cell."""
        mask, self._chosen = self.masking(k)
        if self.threshold is not None:
            self._chosen = above(mask, self._chosen, self.threshold)
        return mask, self._chosen

    def chosen(self) -> int:
        """Cells that were chosen since ``start``; with a threshold it waits for the device."""
        if self._chosen is None:
            return 0
        return self._chosen.shape[1] if self.threshold is None else int((self._chosen >= 0).sum())

    @ordinary()
    def buffer(self, out: Tensor | None = None) -> Tensor:
        """A canvas: ``out`` where it has that size; the plan's own where not; a new one without it."""
        size = [side * self.config.scale for side in self.padded]
        if out is None and self.device.type == "cpu":
            return empty_in_huge_pages((*size, 3), self.pixel)
        if out is None:
            return torch.empty(*size, 3, dtype=self.pixel, device=self.device)
        if list(out.shape[:2]) == size and out.device == self.device:
            return out
        if self._canvas is None:
            self._canvas = torch.empty(*size, 3, dtype=self.pixel, device=self.device)
        return self._canvas

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def crop(self, canvas: Tensor) -> Tensor:
        """The part of a canvas that belongs to the image."""
        scale = self.config.scale
        return canvas[: self.height * scale, : self.width * scale]

    @ordinary()
    def run(self, image: Tensor, k: int | None = None, out: Tensor | None = None) -> Tensor:
        """-M of ``k`` cells, by default all that there is room for: (H, W, 3) -> (sH, sW, 3) on the CPU, in ``out``."""
        canvas = self.buffer(out)
        self.show(image, canvas)
        k = self.capacity if k is None else k
        indices = self.choose(k)[1] if k else None
        if indices is not None and indices.shape[1]:
            self.refine(indices, canvas)
        return self.result(canvas, out)

    @ordinary()
    def dense(self, image: Tensor, out: Tensor | None = None) -> Tensor:
        """-D in the form of ``run``."""
        canvas = self.buffer(out)
        self.show(image, None)
        self.decomposed(canvas)
        return self.result(canvas, out)

    def begin(self, image: Tensor, k: int | None = None, dense: bool = False) -> Begun | None:
        """``run`` (``dense`` if asked for) without waiting for its result; None for a plan that cannot."""
        return None

    def result(self, canvas: Tensor, out: Tensor | None) -> Tensor:
        """What ``run`` returns of a canvas, which the plan holds no longer."""
        self.shown, picture = None, self.crop(canvas)
        if out is None:
            return picture.cpu()
        if out.data_ptr() != picture.data_ptr():
            out.copy_(picture)
        return out


class PatchPlan(Plan):
    """A plan that cuts cells out of the coarse feature, with a halo, refines these patches and pastes them."""

    @abstractmethod
    def gather(self, indices: Tensor) -> None:
        """Take the cells at ``indices`` (1, n), n <= ``capacity``, of the last coarse feature as those to refine."""

    @abstractmethod
    def patches(self) -> Tensor:
        """A copy (n, C, p + 2h, p + 2h) of what ``gather`` took."""

    @abstractmethod
    def load(self, patches: Tensor) -> None:
        """Take these patches, which ``patches`` of this or another plan returned, as those to refine."""

    @abstractmethod
    def refined(self) -> Tensor:
        """HR patches (n, 3, sp, sp), of pixels, of what ``gather`` or ``load`` took."""

    def refine(self, indices: Tensor, out: Tensor) -> None:
        self.gather(indices)
        paste_patches_(out.permute(2, 0, 1)[None], self.refined(), indices)


class Planner(ABC):
    """A network prepared for plans of all sizes.

    ``takes_place``: its plans look at ``place``. ``begins``: they can ``begin`` an image. ``pixel``: the type of their
    images and pictures. ``narrow``: the dtype in which values of photographs may be too large, None for that of
    tensors.
    """

    takes_place = False
    begins = False
    narrow: torch.dtype | None = None
    pixel = torch.uint8

    @property
    @abstractmethod
    def description(self) -> str:
        """Arithmetic and what does it."""

    @abstractmethod
    def plan(self, height: int, width: int, capacity: int) -> Plan: ...

    @abstractmethod
    def bytes_needed(self, height: int, width: int, capacity: int, dense: bool = False) -> int:
        """Memory that a plan takes while it runs -M, or -D if ``dense``, with the picture that it makes."""
