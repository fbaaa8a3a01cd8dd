"""What a result has beside its pictures: streams of the original as they are, subtitles also in another codec."""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from .pyav import pyav

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

Timed = tuple[Fraction, int, Any]  # when a packet is decoded, the stream's number, the packet
Road = Callable[[Any], list[Any]]  # from a packet of the original to those of the result

TEXTS = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}  # of subtitles that are text
# What a decoder of subtitles without styles writes; those of ASS have a header of their own.
_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


class Beside:
    """Sound, subtitles, covers, attachments and chapters of ``source`` in ``out``, to which nothing was written yet.

    ``pictures`` is the number of the stream that is upscaled. ``notes`` say what the container does not hold.
    """

    def __init__(self, source: InputContainer, out: OutputContainer, pictures: int, notes: list[str]):
        self._source: Any = source
        self._out: Any = out
        self._notes = notes
        self._roads: dict[int, Road] = {}
        self._covers: list[Any] = []  # streams of ``out`` of one packet each, and these
        chapters = "mp4" in source.format.name and bool(source.chapters())  # which there are a stream, too
        stream: Any
        for stream in source.streams:
            if stream.index == pictures:
                continue
            if stream.type == "data" and chapters:
                chapters = False
            elif stream.type == "video":
                self._add_video(stream)
            elif stream.type == "attachment" and out.format.name == "matroska":
                out.add_attachment(stream.name or "attachment", stream.mimetype or _OF_ANYTHING, stream.data)
            elif stream.type not in ("audio", "subtitle"):
                self._leave_out(stream)
            elif takes(out.format.name, stream):
                self._copy(stream)
            elif stream.type == "subtitle" and stream.codec_context.codec.text_sub:
                self._rewrite(stream, TEXTS[out.format.name])
            else:
                self._leave_out(stream)
        if source.chapters():
            out.set_chapters(source.chapters())

    def begin(self) -> None:
        """Write what has no time."""
        for packet in self._covers:
            self._out.mux(packet)

    def packets(self, start: Fraction) -> Iterator[Timed]:
        """All others in the order of the original, ``start`` seconds earlier."""
        streams = [self._source.streams[index] for index in self._roads]
        with suppress(pyav().error.InvalidDataError):  # where the file was cut off
            for packet in self._source.demux(streams) if streams else ():
                if packet.dts is None:
                    continue
                number, earlier = packet.stream.index, round(start / packet.time_base)
                packet.pts = None if packet.pts is None else packet.pts - earlier
                packet.dts -= earlier
                for made in self._roads[number](packet):
                    yield made.dts * made.time_base, number, made

    def _copy(self, stream: Any) -> None:
        copy = self._out.add_stream_from_template(stream, opaque=True)
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition

        def road(packet: Any) -> list[Any]:
            packet.stream = copy
            return [packet]

        self._roads[stream.index] = road

    def _rewrite(self, stream: Any, codec: str) -> None:
        """Subtitles as text of another codec, with as much of their style as that has."""
        context = stream.codec_context
        made = self._out.add_stream(codec)
        made.metadata.update(stream.metadata)
        made.disposition = stream.disposition
        styles = context.extradata if context.name in ("ass", "ssa") else None
        made.codec_context.subtitle_header = styles or _HEADER
        made.time_base = made.codec_context.time_base = stream.time_base
        self._notes.append(f"its subtitles ({context.name}) became {codec}, which {self._out.format.name} takes")
        create = pyav().subtitles.subtitle.SubtitleSet.create

        def road(packet: Any) -> list[Any]:
            packets = []
            for text in getattr(context.decode2(packet), "rects", ()):
                encoded = made.codec_context.encode_subtitle(create(text.ass, 0, packet.duration or 0, packet.pts))
                encoded.pts, encoded.dts, encoded.duration = packet.pts, packet.dts, packet.duration
                encoded.time_base, encoded.stream = packet.time_base, made
                packets.append(encoded)
            return packets

        self._roads[stream.index] = road

    def _add_video(self, stream: Any) -> None:
        """A cover, which is one picture, as the container has it; another video is not upscaled."""
        cover = pyav().stream.Disposition.attached_pic
        if not stream.disposition & cover:
            self._notes.append(
                f"only its first video was upscaled, and the other ({stream.codec_context.name}) was left out; "
                f"`ffmpeg -i IN -map 0:{stream.index} -c copy OUT` gives it a file of its own"
            )
            return
        packet = next(self._source.demux(stream))
        self._source.seek(0)
        kind = self._out.format.name
        if kind == "matroska":
            name = stream.metadata.get("filename") or "cover"
            type_ = stream.metadata.get("mimetype") or _IMAGES.get(stream.codec_context.name, _OF_ANYTHING)
            ending = "" if "." in name else mimetypes.guess_extension(type_) or ""
            self._out.add_attachment(name + ending, type_, bytes(packet))
        elif kind == "mp4" and stream.codec_context.name in _IMAGES:
            copy = self._out.add_stream_from_template(stream, opaque=True)
            copy.disposition = cover
            packet.stream, packet.pts, packet.dts = copy, 0, 0
            self._covers.append(packet)
        else:
            self._leave_out(stream, "cover")

    def _leave_out(self, stream: Any, what: str | None = None) -> None:
        context = stream.codec_context
        name = stream.name if context is None else context.name
        remedy = "" if self._out.format.name == "matroska" else "; try .mkv"
        self._notes.append(
            f"{self._out.format.name} does not take its {what or stream.type} ({name}), which was left out{remedy}"
        )


_OF_ANYTHING = "application/octet-stream"
_IMAGES = {"mjpeg": "image/jpeg", "png": "image/png"}


def takes(kind: str, stream: Stream) -> bool:
    """Whether a container takes a stream of this codec: a trial, since some refuse what they list."""
    try:
        with pyav().open(io.BytesIO(), "w", format=kind) as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (pyav().error.FFmpegError, ValueError):
        return False
    return True
