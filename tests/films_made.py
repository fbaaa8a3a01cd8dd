"""Small videos, made and taken apart, and a run over one that is broken off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mga.cli import main
from mga_kernels import MaskGuidedSR

av = pytest.importorskip("av", reason="needs PyAV")

TIMES = [0, 3, 6, 9, 15, 18, 30, 33, 36, 39, 42, 48]  # of a variable frame rate, in 1/90 s


def pictures(count=12, height=18, width=26):
    generator = np.random.default_rng(0)
    background = generator.integers(40, 200, (height // 6, 2, 3), dtype=np.uint8).repeat(6, 0).repeat(width // 2, 1)
    frames = []
    for number in range(count):
        frame = background.copy()
        frame[4:8, number : number + 4] = (200, 40, 60)
        frames.append(frame)
    return frames


def make(path, frames, times=None, codec="ffv1", pix_fmt="bgr0", sound=False, **context):
    """A video of these frames, at these times in 1/90 s."""
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "otters"
        stream = out.add_stream(codec, rate=30, options={"crf": "0"} if codec == "libx264" else {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = pix_fmt, Fraction(1, 90)
        rotation = context.pop("rotation", 0)
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        if sound:
            voice = out.add_stream("aac", rate=8000, layout="mono")
            tone = (np.sin(np.arange(8000) / 5) * 9000).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8000, 0
            out.mux(voice.encode(frame))
            out.mux(voice.encode(None))
        for number, rgb in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            if pix_fmt.startswith("yuv"):
                picture = picture.reformat(
                    format=pix_fmt,
                    dst_colorspace={1: "ITU709", 6: "ITU601"}[context.get("colorspace", 6)],
                    src_color_range=2,
                    dst_color_range=context.get("color_range", 1),
                )
            picture.pts, picture.time_base = (times or range(0, 3 * len(frames), 3))[number], Fraction(1, 90)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


def repeated(model, image):
    """In the place of a network whose result is not known."""
    return image.repeat(2, axis=0).repeat(2, axis=1)


def video_command(model_file, capsys):
    """`mga video`, of this model where no other is named: its exit code and output."""

    def run(*arguments):
        try:
            code = main(["video", "--model", str(model_file), "--dtype", "float32", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr()

    return run


def repeating_command(model_file, capsys, monkeypatch):
    """`mga video` with pixels that are repeated in the place of what the network makes: its exit code and output."""
    monkeypatch.setattr(MaskGuidedSR, "upscale", repeated)
    return video_command(model_file, capsys)


def decoded(path):
    """[(seconds, rgb)] of all frames."""
    with av.open(str(path)) as container:
        return [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def packets(path, kind):
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        return [bytes(packet) for packet in container.demux(streams) if packet.dts is not None] if streams else []


@contextmanager
def broken_off(monkeypatch: pytest.MonkeyPatch, kind: Any) -> Iterator[None]:
    """Within it Ctrl-C comes before the ninth image that ``kind.upscale`` is given."""
    upscale, done = kind.upscale, []

    def counted(*given: Any, **settings: Any) -> Any:
        if len(done) == 8:
            raise KeyboardInterrupt
        done.append(1)
        return upscale(*given, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "upscale", counted)
        yield
