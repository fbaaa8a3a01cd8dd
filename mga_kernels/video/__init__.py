"""Videos in and out by PyAV (extra ``video``): frames as bytes of RGB, everything else of the file as it is."""

from .assembling import assemble, container_of, frames_in
from .encoding import CODECS, Encoding, write_segment
from .reading import Frame, Video

__all__ = ["CODECS", "Encoding", "Frame", "Video", "assemble", "container_of", "frames_in", "write_segment"]
