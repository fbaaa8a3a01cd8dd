"""Frames as y4m: raw pictures one after the other, which ffmpeg, VapourSynth and encoders read from a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction

from .colour import UNSPECIFIED, VideoColour, assumed_matrix
from .encoding import Encoding, Pictures
from .reading import Frame, Video

_SAMPLING = {8: "420mpeg2 XYSCSS=420MPEG2", 10: "420p10 XYSCSS=420P10"}


def write_y4m(
    write: Callable[[bytes], object], frames: Iterable[Frame], video: Video, size: tuple[int, int], encoding: Encoding
) -> list[str]:
    """Give the stream to ``write``, a frame at a time; returns notes on what it cannot say.

    It says no matrix and no time, so colours are in the matrix that readers assume for pictures of this size, in
    16..235, and frames are at the video's rate.
    """
    rate, aspect = video.rate or Fraction(25), video.aspect or Fraction(0, 1)
    colour = VideoColour(assumed_matrix(size[1]), UNSPECIFIED, UNSPECIFIED, full=False)
    pictures = Pictures(size, encoding.kind.formats[encoding.bits], colour, video.deep)
    ratios = f"F{rate.numerator}:{rate.denominator} Ip A{aspect.numerator}:{aspect.denominator}"
    sampling = f"C{_SAMPLING[encoding.bits]} XCOLORRANGE=LIMITED"
    write(f"YUV4MPEG2 W{size[0]} H{size[1]} {ratios} {sampling}\n".encode())
    first, varies = None, False
    for number, frame in enumerate(frames):
        first = frame.pts if first is None else first
        varies |= abs((frame.pts - first) * video.time_base * rate - number) > 1
        write(b"FRAME\n" + pictures.of(frame.rgb).to_ndarray().tobytes())
    said = f"{rate.numerator / rate.denominator:.4g}"
    return [f"its times vary, and y4m has none: all frames are at {said} a second"] if varies else []
