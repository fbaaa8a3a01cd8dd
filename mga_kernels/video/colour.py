"""Which numbers stand for a colour: the matrix between RGB and YCbCr and the range, of files that say it or do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import VideoCodecContext

UNSPECIFIED = 2  # of matrix, primaries and transfer
# Matrices as AVCOL_SPC numbers them -> what PyAV calls those that it converts.
MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020"}
RGB_MATRIX = 0
HD_HEIGHT = 720  # from this height on players take what is unspecified for BT.709, below for BT.601


def assumed_matrix(height: int) -> int:
    """What players take where nothing is said."""
    return 1 if height >= HD_HEIGHT else 6


@dataclass(frozen=True)
class VideoColour:
    """``matrix``, ``primaries`` and ``transfer``: code points of ITU-T H.273; ``full``: luma in 0..255, not 16..235."""

    matrix: int
    primaries: int
    transfer: int
    full: bool

    @classmethod
    def of(cls, context: VideoCodecContext, height: int) -> VideoColour:
        """What a codec context says; a matrix that it leaves open is what players assume for this height."""
        matrix = int(context.colorspace)
        if matrix == UNSPECIFIED:
            matrix = assumed_matrix(height)
        full = int(context.color_range) == 2 or (context.pix_fmt or "").startswith("yuvj")
        return cls(matrix, int(context.color_primaries), int(context.color_trc), full)

    @property
    def name(self) -> str:
        """PyAV's name of the matrix; KeyError for one that it does not convert."""
        return MATRICES[self.matrix]
