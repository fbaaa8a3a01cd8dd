"""The result of encoded parts and of what the original has beside its pictures."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..system.files import whole_file
from .encoding import CODECS, LEAD
from .pyav import errors_of, pyav
from .reading import PIPE, Video, open_source
from .streams import Beside, Timed

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
TAKEN = {  # codecs of pictures that containers take, the usual one first
    "mp4": ("h264", "hevc", "av1", "ffv1"),
    "mov": ("h264", "hevc"),
    "matroska": ("h264", "hevc", "av1", "ffv1"),
    "webm": ("av1",),
}


def assemble(parts: Sequence[Path], video: Video, target: Path) -> list[str]:
    """Write ``target``: the pictures of ``parts``, one after the other, and sound, subtitles, chapters, rotation and
    description of ``video``, whose frames have been read; of PIPE only pictures. Times stay what they are, less
    ``video.start``.

    The file appears whole or not at all. Returns notes on what the container cannot hold.
    """
    notes: list[str] = []
    av, kind = pyav(), container_of(target)
    with whole_file(target) as file, errors_of(f"{target} cannot be written"):
        with (
            nullcontext() if video.path == PIPE else open_source(video.path) as source,
            av.open(f"file:{parts[0]}") as first,
            av.open(file, "w", format=kind) as out,
        ):
            stream = out.add_stream_from_template(first.streams.video[0], opaque=True)
            stream.time_base = first.streams.video[0].time_base
            if kind in ("mp4", "mov") and stream.codec_context.name == "hevc":
                stream.codec_context.codec_tag = "hvc1"  # players of Apple's take no other
            if video.rotation:
                stream.set_display_rotation(video.rotation)
            roads, end = [_pictures(parts, stream)], Fraction(0)
            if source is None:
                if len(video.container.streams) > 1:
                    notes.append("only its pictures were taken, as it can be read but once")
            else:
                out.metadata.update({key: value for key, value in source.metadata.items() if key not in _OF_CONTAINERS})
                stream.metadata.update(video.titles)
                beside = Beside(source, out, video.stream.index, notes)
                beside.begin()
                roads.append(beside.packets(video.start))
            for _, _, packet in heapq.merge(*roads, key=lambda entry: entry[:2]):
                end = max(end, (packet.dts + (packet.duration or 0)) * packet.time_base)
                out.mux(packet)
    if video.seconds and end < video.seconds - max(0.5, video.seconds / 50):
        notes.append(
            f"it says that it is {video.seconds:.1f} s long and ends after {float(end):.1f} s; was it cut off?"
        )
    return notes


_OF_CONTAINERS = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}


def _pictures(parts: Sequence[Path], stream: Any) -> Iterator[Timed]:
    """The packets in the order of decoding. When each is decoded the parts do not say for their first ones.

    That is at the time of a picture so many pictures before, that none is shown before it is decoded.
    """
    times = [[packet.pts for packet in _packets_of(part)] for part in parts]
    ranks = [{pts: rank for rank, pts in enumerate(sorted(each))} for each in times]
    ahead = max(i - rank[pts] for each, rank in zip(times, ranks, strict=True) for i, pts in enumerate(each))
    shown = [pts for each in times for pts in sorted(each)]
    step = min((later - pts for pts, later in pairwise(shown)), default=1)
    decoded = chain((shown[0] - i * step for i in range(ahead, 0, -1)), shown)
    for part in parts:
        for packet in _packets_of(part):
            lead = round(LEAD / packet.time_base)
            packet.pts, packet.dts = packet.pts - lead, next(decoded) - lead
            packet.stream = stream
            yield packet.dts * packet.time_base, -1, packet


def frames_in(part: Path) -> int:
    """Frames that ``write_segment`` has written to a part."""
    return sum(1 for _ in _packets_of(part))


def _packets_of(part: Path) -> Iterator[Any]:
    with pyav().open(f"file:{part}") as container:
        yield from (packet for packet in container.demux(container.streams.video[0]) if packet.pts is not None)


def container_of(target: Path) -> str:
    """InputError for a name that is not that of a video."""
    kind = CONTAINERS.get(target.suffix.lower())
    if kind is None:
        names = ", ".join(CONTAINERS)
        raise InputError(f"cannot write {target}: the extension {target.suffix or '(none)'} is none of {names}")
    return kind


def codec_in(target: Path, asked: str | None) -> str:
    """The codec that is asked for, or the usual one of the container; InputError where that does not take it."""
    taken = TAKEN[container_of(target)]
    codec = asked or taken[0]
    if codec in CODECS and codec not in taken:
        others = " or ".join(f"--codec {name}" for name in taken)
        raise InputError(f"video: {target.suffix} does not take {codec}; choose {others}, or a name as OUT.mkv")
    return codec
