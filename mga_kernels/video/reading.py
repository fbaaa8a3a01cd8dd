"""A video's frames as RGB, with the time of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import InputError
from .colour import MATRICES, RGB_MATRIX, VideoColour
from .pyav import errors_of, pyav

if TYPE_CHECKING:
    from av.container import InputContainer

PIPE = Path("-")  # standard input among the videos
TITLES = "language", "title", "name"  # of what is said of a stream that which is true of a larger one


@dataclass(frozen=True)
class Frame:
    """``rgb`` uint8 or uint16 (H, W, 3); ``pts`` and ``duration`` in the video's time base, the latter 0 if unknown."""

    rgb: np.ndarray
    pts: int
    duration: int


class Pace:
    """Where frames that follow each other at an equal pace otherwise have a gap, as a damaged part of a file leaves.

    Of an ``even`` pace steps differ by less than half of one; videos whose frames come when something changes have
    none.
    """

    USUAL = 20  # frames at the pace for each gap, at least

    def __init__(self) -> None:
        self.gaps: list[tuple[int, int]] = []  # times
        self.frames = 0

    def note(self, expected: int, pts: int, step: int) -> None:
        """A frame at ``pts``, where one at ``expected`` would have been at the pace."""
        self.frames += 1
        if 2 * abs(pts - expected) >= step:
            self.gaps.append((expected, pts))

    def even(self) -> bool:
        return all(first < last for first, last in self.gaps) and self.frames >= self.USUAL * len(self.gaps)


def open_source(path: Path) -> InputContainer:
    """PyAV's container. A list that names other places opens none but files."""
    name, protocol = ("pipe:0", "pipe") if path == PIPE else (f"file:{path}", "file")
    return pyav().open(name, options={"protocol_whitelist": protocol})


class Video:
    """The first video stream of a file or of PIPE; a context manager. InputError where there is none that can be read.

    ``count``: frames, as the file says or estimated from its length, None where nothing tells. ``start``: seconds that
    are taken from all times, of streams that begin when the camera or the station did. ``titles``: its names and its
    language. ``notes`` say what the frames do
    not carry, and after the last one what was ``damaged``: packets that could not be decoded.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.name = "standard input" if self.path == PIPE else str(self.path)
        if self.path != PIPE and not self.path.is_file():
            raise InputError(f"{self.name} {'is no file' if self.path.exists() else 'does not exist'}")
        with errors_of(f"{self.name} cannot be read as a video"):
            self.container = open_source(self.path)
        try:
            self._describe()
        except BaseException:
            self.close()
            raise

    def _describe(self) -> None:
        cover = pyav().stream.Disposition.attached_pic
        streams = [stream for stream in self.container.streams.video if not stream.disposition & cover]
        if not streams:
            raise InputError(f"{self.name} has no video stream; `mga upscale` takes images")
        self.stream = streams[0]
        self.stream.thread_type = "AUTO"
        context = self.stream.codec_context
        self.width, self.height = context.width, context.height
        if not self.width or not self.height or context.pix_fmt is None:
            raise InputError(f"{self.name} has a video stream that cannot be decoded")
        self.colour = VideoColour.of(context, self.height)
        if self.colour.matrix not in (*MATRICES, RGB_MATRIX):
            raise InputError(
                f"{self.name} has a colour matrix (number {self.colour.matrix} of ITU-T H.273) that is not converted; "
                "convert the video to BT.709 first"
            )
        self.time_base = cast(Fraction, self.stream.time_base)  # None only of streams that are being made
        self.rate: Fraction | None = self.stream.average_rate or self.stream.guessed_rate
        self.aspect: Fraction | None = self.stream.sample_aspect_ratio
        self.seconds = self.container.duration / 1e6 if self.container.duration else None
        estimate = round(self.seconds * self.rate) if self.seconds and self.rate else None
        self.count: int | None = self.stream.frames or estimate
        running = self.container.format.flags & pyav().format.Flags.ts_discont.value
        self.start = Fraction(self.container.start_time or 0, 1_000_000) if running else Fraction(0)
        self.damaged = 0
        self.titles = {key: self.stream.metadata[key] for key in TITLES if key in self.stream.metadata}
        self.rotation = 0  # degrees counter-clockwise, known with the first frame
        self.notes: list[str] = []
        assert context.format is not None  # as there is a pix_fmt
        parts = context.format.components
        self.bits, self.deep = max(part.bits for part in parts), False
        if any(part.is_alpha for part in parts):
            self.notes.append("its transparency was left out")
        if self.colour.transfer in (16, 18):
            self.notes.append("it is HDR, and the network takes its values as if they were not")

    def keep_bits(self, bits: int) -> None:
        """Frames become uint16 where the video and a result of ``bits`` bits a value have more than 8; else a note says
        what is lost."""
        self.deep = min(self.bits, bits) > 8
        if self.bits > 8 and not self.deep:
            self.notes.append(f"its {self.bits} bits a value become 8; --bits 10 keeps them")

    def frames(self, done: int = 0) -> Iterator[Frame]:
        """All frames behind the first ``done``. InputError for interlaced ones, and for a size that changes on the way.

        Those that are done are decoded, as others depend on them, and no more. What is damaged is left out.
        """
        av = pyav()
        expected, start, pace = 0, round(self.start / self.time_base), Pace()
        step = round(1 / (self.rate * self.time_base)) if self.rate else 1
        with errors_of(f"{self.name} cannot be decoded any further"):
            for number, frame in enumerate(self._decoded(av)):
                if frame.interlaced_frame:
                    raise InputError(
                        f"{self.name} is interlaced, and its halves would be upscaled as one picture; deinterlace it "
                        "first (for example `ffmpeg -i IN -vf bwdif OUT`)"
                    )
                if (frame.width, frame.height) != (self.width, self.height):
                    raise InputError(
                        f"{self.name} changes from {self.width}x{self.height} to {frame.width}x{frame.height} on the "
                        "way; cut it there"
                    )
                self.rotation = frame.rotation
                pts = expected if frame.pts is None else frame.pts
                if number:
                    pace.note(expected, pts, step)
                expected = pts + (frame.duration or step)
                if number >= done:
                    yield Frame(self._to_rgb(av, frame), pts - start, frame.duration or 0)
        if self.damaged:
            parts = "part that cannot" if self.damaged == 1 else "parts that cannot"
            self.notes.append(f"it has {self.damaged} {parts} be decoded, and the frames of these are missing")
        elif pace.gaps and pace.even():
            first, last = (float((pts - start) * self.time_base) for pts in pace.gaps[0])
            more = f", nor in {len(pace.gaps) - 1} more such places" if len(pace.gaps) > 1 else ""
            self.notes.append(f"it has no frames between {first:.1f} and {last:.1f} s{more}; is it damaged?")

    def _decoded(self, av: Any) -> Iterator[Any]:
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.InvalidDataError:  # as where a file was cut off
                self.damaged += 1
                break
            if packet is None:
                return
            yield from self._frames_of(av, packet)
        yield from self._frames_of(av, None)

    def _frames_of(self, av: Any, packet: Any) -> list[Any]:
        """What the decoder gives for a packet, or without one for those that it still has."""
        try:
            return self.stream.decode(packet)
        except av.error.InvalidDataError:
            self.damaged += 1
            return []

    def _to_rgb(self, av: Any, frame: Any) -> np.ndarray:
        flags = av.video.reformatter.Interpolation
        ranges = av.video.reformatter.ColorRange
        how: dict[str, Any] = {"interpolation": flags.BICUBIC | flags.ACCURATE_RND | flags.FULL_CHR_H_INT}
        if self.colour.matrix != RGB_MATRIX:
            how |= {"src_colorspace": self.colour.name, "dst_color_range": ranges.JPEG}
            how["src_color_range"] = ranges.JPEG if self.colour.full else ranges.MPEG
        return frame.reformat(format="rgb48le" if self.deep else "rgb24", **how).to_ndarray()

    def close(self) -> None:
        self.container.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
