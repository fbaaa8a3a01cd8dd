"""Streams and pinned memory for photographs on their way to a GPU and back; on a CPU the same calls without either."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def host_bytes(device: torch.device, *size: int) -> Tensor:
    """uint8 on the host, in pinned memory where ``device`` is a GPU; torch keeps what is freed for the next call."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")


class Mark:
    """A point in a lane's work."""

    def __init__(self, event: torch.cuda.Event | None):
        self.event = event

    def wait(self) -> None:
        """Hold the host until the work before this point is done."""
        if self.event is not None:
            self.event.synchronize()

    def passed(self) -> bool:
        """Whether ``wait`` would return at once."""
        return self.event is None or self.event.query()


class Lane:
    """A stream of its own, in which work is queued within ``with lane:``."""

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._entered: AbstractContextManager = nullcontext()

    def __enter__(self) -> Lane:
        self._entered = nullcontext() if self.stream is None else torch.cuda.stream(self.stream)
        self._entered.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    def mark(self) -> Mark:
        """The end of what is queued so far."""
        if self.stream is None:
            return Mark(None)
        event = torch.cuda.Event(blocking=True)  # a waiting host leaves its core to those who decode and encode
        event.record(self.stream)
        return Mark(event)

    def after(self, mark: Mark) -> None:
        """What is queued next starts when the work before ``mark`` is done; the host does not wait."""
        if self.stream is not None and mark.event is not None:
            self.stream.wait_event(mark.event)

    def after_callers(self) -> None:
        """The same for all that the caller's own stream holds."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))

    def before_callers(self) -> None:
        """What the caller's own stream gets next starts when the work of this lane is done."""
        if self.stream is not None:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)


class InFlight:
    """A picture on its way to the host, in memory of its own, so the slot that it comes from may take the next image.

    ``report`` int32 (2): whether all values were finite, and the cells that were chosen.
    """

    def __init__(self, picture: Tensor, report: Tensor, arrived: Mark):
        self._picture: Tensor | None = picture
        self._report, self._arrived = report, arrived

    def done(self) -> bool:
        """Whether ``result`` has nothing to wait for."""
        return self._arrived.passed()

    def result(self) -> tuple[Tensor, bool, int]:
        """The picture (sH, sW, 3), whether all values were finite, and the cells that were chosen; once."""
        self._arrived.wait()
        assert self._picture is not None, "an image was finished twice"
        picture, self._picture = self._picture, None
        finite, chosen = self._report.tolist()
        return picture, bool(finite), chosen


class Slot:
    """What one photograph occupies while it is computed: its bytes, and on the device its picture."""

    def __init__(self, device: torch.device, image: tuple[int, int], picture: tuple[int, int]):
        self.device = device
        self.host_image = host_bytes(device, *image, 3)
        self.image = torch.empty(*image, 3, dtype=torch.uint8, device=device)
        self.picture = torch.empty(*picture, 3, dtype=torch.uint8, device=device)
        self.report = torch.zeros(2, dtype=torch.int32, device=device)  # all finite, cells chosen
        self.done = Mark(None)

    def upload(self, lane: Lane, image: Tensor) -> Mark:
        """Queue the way of ``image`` (H, W, 3) to the device; waits for the photograph that had this slot before."""
        self.done.wait()
        self.host_image.copy_(image)
        with lane:
            self.image.copy_(self.host_image, non_blocking=True)
            return lane.mark()

    def download(self, lane: Lane, computed: Mark) -> InFlight:
        """Queue the way of the picture and its report to the host, into new memory that the caller may keep."""
        picture = host_bytes(self.device, *self.picture.shape)
        report = torch.empty(2, dtype=torch.int32, pin_memory=self.device.type == "cuda")
        with lane:
            lane.after(computed)
            picture.copy_(self.picture, non_blocking=True)
            report.copy_(self.report, non_blocking=True)
            self.done = lane.mark()
        return InFlight(picture, report, self.done)
