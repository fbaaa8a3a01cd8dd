"""Frames of RGB as packets of a codec, a part of a video after the other; each is a file that appears whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import InputError
from ..system.files import whole_file
from .colour import RGB_MATRIX, VideoColour
from .pyav import errors_of, pyav
from .reading import Frame, Video

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import OutputContainer

LEAD = 60  # seconds by which pictures are later in a part: one that began before zero would be moved by its container


@dataclass(frozen=True)
class Codec:
    """``encoder``: FFmpeg's name; ``formats``: of pixels, by bits a value; ``quality``: the CRF where none is given,
    ``worst`` the largest that there is; ``least``: the smallest side that the encoder takes.

    That of h264 belongs to its preset: files as large as those of "medium" with CRF 17, half a dB less near 51, in a
    third of the time, which is that of a fast network.
    """

    encoder: str
    formats: dict[int, str]
    quality: int | None
    worst: int
    least: int
    options: dict[str, str]

    @property
    def subsampled(self) -> bool:
        return "420" in self.formats[8]


_YUV = {8: "yuv420p", 10: "yuv420p10le"}
CODECS = {
    "h264": Codec("libx264", _YUV, 14, 51, 2, {"preset": "veryfast"}),
    "hevc": Codec("libx265", _YUV, 19, 51, 16, {"x265-params": "log-level=error"}),
    "av1": Codec("libsvtav1", _YUV, 24, 63, 4, {}),
    "ffv1": Codec("ffv1", {8: "bgr0", 10: "gbrp10le"}, None, 0, 1, {"level": "3", "slicecrc": "1"}),
}


@dataclass(frozen=True)
class Encoding:
    """How results are encoded: a key of CODECS, ``crf`` (None for the codec's own), 8 or 10 ``bits`` a value."""

    codec: str = "h264"
    crf: int | None = None
    bits: int = 8

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise InputError(f"video: there is no codec {self.codec!r}; choose one of {', '.join(CODECS)}")
        if self.bits not in (8, 10):
            raise InputError(f"video: results have 8 or 10 bits a value, got {self.bits}")
        if self.crf is not None and CODECS[self.codec].quality is None:
            raise InputError(f"video: {self.codec} is without loss, so --crf has no meaning; leave it out")
        if self.crf is not None and not 0 <= self.crf <= self.kind.worst:
            raise InputError(f"video: --crf of {self.codec} is from 0 to {self.kind.worst}, got {self.crf}")

    @property
    def kind(self) -> Codec:
        return CODECS[self.codec]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The largest size of results that is not larger: 4:2:0 has even sides. InputError for what is too small."""
        sides = (width - width % 2, height - height % 2) if self.kind.subsampled else (width, height)
        if min(sides) < self.kind.least:
            least = self.kind.least
            raise InputError(
                f"video: {width}x{height} is too small for {self.codec}, which takes sides of {least} pixels or more; "
                "ask for a larger result"
            )
        return sides


def write_segment(path: Path, frames: Iterable[Frame], video: Video, size: tuple[int, int], encoding: Encoding) -> int:
    """Encode ``frames``, of ``size`` (width, height) and with the times of ``video``; returns how many they were."""
    count = 0
    with whole_file(path) as stream, errors_of(f"{path} cannot be encoded as {encoding.codec}"):
        with pyav().open(stream, "w", format="nut") as container:
            encoder = _Encoder(container, video, size, encoding)
            for frame in frames:
                encoder.add(frame)
                count += 1
            encoder.finish()
    return count


class Pictures:
    """Makes pictures of ``format`` of frames of RGB of ``size``, uint16 where they are ``deep``; ``colour`` where the
    format is YCbCr."""

    def __init__(self, size: tuple[int, int], format: str, colour: VideoColour | None, deep: bool):
        self.format, self.colour = format, colour
        self.given = pyav().VideoFrame(*size, "rgb48le" if deep else "rgb24")
        self.last: np.ndarray | None = None  # and the picture that it became
        self.picture: VideoFrame

    def of(self, rgb: np.ndarray) -> VideoFrame:
        if rgb is not self.last:
            self.last, self.picture = rgb, self._converted(rgb)
        return self.picture

    def _converted(self, rgb: np.ndarray) -> VideoFrame:
        """Through a frame of FFmpeg's, since converters read beyond the end of the last row."""
        flags, ranges = pyav().video.reformatter.Interpolation, pyav().video.reformatter.ColorRange
        how: dict[str, Any] = {"interpolation": flags.BICUBIC | flags.ACCURATE_RND | flags.FULL_CHR_H_INP}
        if self.colour is not None:
            how |= {"dst_colorspace": self.colour.name, "src_color_range": ranges.JPEG}
            how["dst_color_range"] = ranges.JPEG if self.colour.full else ranges.MPEG
        plane = self.given.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        values = np.ascontiguousarray(rgb).reshape(len(rgb), -1).view(np.uint8)
        np.copyto(rows[: len(values), : values.shape[1]], values)
        return self.given.reformat(format=self.format, **how)


class _Encoder:
    def __init__(self, container: OutputContainer, video: Video, size: tuple[int, int], encoding: Encoding):
        self.container, self.time_base, self.written = container, video.time_base, 0
        kind, quality = encoding.kind, encoding.kind.quality
        os.environ.setdefault("SVT_LOG", "1")  # errors; the encoder of AV1 says on standard error what it sets, too
        crf = encoding.crf if encoding.crf is not None else quality
        options = kind.options | ({} if crf is None else {"crf": str(crf)})
        rate = video.rate or Fraction(25)
        stream = self.stream = cast("VideoStream", container.add_stream(kind.encoder, rate=rate, options=options))
        context = stream.codec_context
        stream.width, stream.height = size
        stream.pix_fmt = kind.formats[encoding.bits]
        context.time_base = stream.time_base = video.time_base
        if video.aspect:
            context.sample_aspect_ratio = video.aspect
        colour = video.colour if kind.formats[encoding.bits].startswith("yuv") else None
        # A picture of RGB in the file becomes BT.709, as there is no matrix to keep.
        if colour is not None and colour.matrix == RGB_MATRIX:
            colour = VideoColour(1, colour.primaries, colour.transfer, full=False)
        if colour is not None:
            context.colorspace, context.color_range = colour.matrix, 2 if colour.full else 1
        context.color_primaries, context.color_trc = video.colour.primaries, video.colour.transfer
        self.pictures = Pictures(size, kind.formats[encoding.bits], colour, video.deep)

    def add(self, frame: Frame) -> None:
        picture = self.pictures.of(frame.rgb)
        picture.pts, picture.duration = frame.pts + round(LEAD / self.time_base), frame.duration
        picture.time_base = self.time_base
        self._write(self.stream.encode(picture))

    def finish(self) -> None:
        self._write(self.stream.encode(None))

    def _write(self, packets: Iterable[Packet]) -> None:
        """In the order of decoding. The times of that are not read from parts, and x265 leaves them undefined in one
        of fewer pictures than it looks ahead, so they are merely ones that a container takes."""
        for packet in packets:
            packet.dts, self.written = self.written, self.written + 1
            self.container.mux(packet)
