"""Videos in and out by PyAV (extra ``video``): frames as bytes of RGB, everything else of the file as it is."""

from .assembling import assemble, codec_in, frames_in
from .encoding import CODECS, Encoding, write_segment
from .reading import PIPE, Frame, Video
from .y4m import write_y4m

__all__ = [
    "CODECS",
    "PIPE",
    "Encoding",
    "Frame",
    "Video",
    "assemble",
    "codec_in",
    "frames_in",
    "write_segment",
    "write_y4m",
]
