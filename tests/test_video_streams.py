"""What a video has beside its pictures: each result is read by a decoder, and by `ffprobe` where there is one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from films_made import av, make, pictures, repeating_command

from mga.cli import main
from mga_kernels.engine import Frames
from mga_kernels.video import CODECS, encoding
from mga_kernels.video.assembling import CONTAINERS, TAKEN

LINES = [(200, 600, "Hello <i>world</i>, grüße – 你好"), (900, 300, "Two\nlines")]  # ms, ms, text
SHOWN = ["Hello world, grüße – 你好", "Two\nlines"]
FONT = b"not a font, but kept as it is"
NAMES = {"eng": "in English", "fra": "en français"}


@pytest.fixture
def mga_video(model_file, capsys, monkeypatch):
    """What `mga video` prints where all goes well."""
    command = repeating_command(model_file, capsys, monkeypatch)

    def run(*arguments):
        code, output = command(*arguments)
        assert code == 0, output.err
        return output.out

    return run


def picture_of(codec, size=32):
    """A packet that is one picture."""
    context = av.CodecContext.create(codec, "w")
    context.width = context.height = size
    context.pix_fmt, context.time_base = {"mjpeg": "yuvj420p", "png": "rgb24"}[codec], Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.full((size, size, 3), (200, 10, 10), np.uint8), format="rgb24")
    return bytes((context.encode(frame.reformat(format=context.pix_fmt)) + context.encode(None))[0])


def with_everything(path, folder):
    """Two voices, two languages of subtitles, a font, a cover and chapters."""
    make(folder / "plain.mkv", pictures(36, 32, 32), None, "libx264", "yuv420p", sound=True)
    with av.open(str(folder / "plain.mkv")) as source, av.open(str(path), "w") as out:
        out.metadata["title"] = "otters"
        copies = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        copies[0].metadata["language"] = "deu"
        second = out.add_stream_from_template(source.streams.audio[0])
        texts = [out.add_stream("subrip") for _ in NAMES]
        for stream, language in zip([copies[1], second, *texts], [*NAMES, *NAMES], strict=True):
            stream.metadata.update(language=language, title=NAMES[language])
        for stream in texts:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            stream.codec_context.subtitle_header = b"[Script Info]\nScriptType: v4.00+\n"
        texts[1].disposition = av.stream.Disposition.forced
        out.add_attachment("letters.ttf", "font/ttf", FONT)
        out.add_attachment("cover.jpg", "image/jpeg", picture_of("mjpeg"))
        times = [(0, 500, "one"), (500, 1200, "two")]
        chapter = {"time_base": Fraction(1, 1000)}
        out.set_chapters(
            [chapter | {"id": i, "start": a, "end": b, "metadata": {"title": t}} for i, (a, b, t) in enumerate(times)]
        )
        for packet in source.demux():
            if packet.dts is None:
                continue
            if packet.stream.index == 1:
                again = av.Packet(bytes(packet))
                again.pts, again.dts, again.time_base, again.duration = packet.pts, packet.dts, packet.time_base, 0
                again.stream = second
                out.mux(again)
            packet.stream = copies[packet.stream.index]
            out.mux(packet)
        for stream in texts:
            for start, length, text in LINES:
                packet = av.Packet(text.encode())
                packet.pts = packet.dts = start
                packet.duration, packet.time_base, packet.stream = length, Fraction(1, 1000), stream
                out.mux(packet)
    return path


def probed(path):
    """What FFmpeg's own program says of the streams, where there is one."""
    if shutil.which("ffprobe") is None:
        return None
    words = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)]
    return json.loads(subprocess.run(words, check=True, capture_output=True).stdout)["streams"]


def subtitles(path, number):
    """[(start, text)] of a subtitle stream, in ms."""
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[number]
        found = []
        for packet in container.demux(stream):
            if packet.dts is None or packet.size <= 2:  # mov_text says by an empty one that there is none
                continue
            rects = getattr(stream.codec_context.decode2(packet), "rects", ())
            texts = [re.sub(r"{[^}]*}", "", rect.dialogue.decode()).replace("\\N", "\n") for rect in rects]
            found += [(float(packet.pts * packet.time_base) * 1000, text) for text in texts]
        return found


KEPT = {".mkv": "subrip", ".mp4": "mov_text", ".mov": "mov_text", ".webm": "webvtt"}


@pytest.mark.parametrize("suffix", KEPT)
def test_sound_subtitles_chapters_and_covers(tmp_path, mga_video, suffix):
    source, target = with_everything(tmp_path / "in.mkv", tmp_path), tmp_path / f"out{suffix}"
    said = mga_video(source, "-o", target, "--codec", "av1" if suffix == ".webm" else "h264")
    with av.open(str(source)) as container:
        shift = float(container.streams.subtitles[0].start_time or 0)
    with av.open(str(target)) as container:
        assert [one["metadata"]["title"] for one in container.chapters()] == ["one", "two"]
        assert container.metadata["title"] == "otters"
        languages = [stream.metadata.get("language") for stream in container.streams.audio]
        assert languages == ([] if suffix == ".webm" else [*NAMES])
        assert [stream.metadata["language"] for stream in container.streams.subtitles] == [*NAMES]
        if suffix != ".mov":  # which says less
            forced = [bool(s.disposition & av.stream.Disposition.forced) for s in container.streams.subtitles]
            assert forced == [False, True]
            assert container.streams.video[0].metadata["language"] == "deu"
        covers = [s for s in container.streams.video if s.disposition & av.stream.Disposition.attached_pic]
        assert len(covers) == (suffix in (".mkv", ".mp4"))
        fonts = [s for s in container.streams if s.type == "attachment"]
        assert [(font.name, font.data) for font in fonts] == ([("letters.ttf", FONT)] if suffix == ".mkv" else [])
    for number in range(2):
        found = subtitles(target, number)
        assert [text for _, text in found] == SHOWN
        assert [start for start, _ in found] == pytest.approx([start for start, *_ in LINES], abs=30 + shift)
    assert said.count(f"its subtitles (srt) became {KEPT[suffix]}") == (0 if suffix == ".mkv" else 2)
    assert ("does not take its attachment (letters.ttf), which was left out; try .mkv" in said) == (suffix != ".mkv")
    assert ("does not take its cover (mjpeg)" in said) == (suffix in (".mov", ".webm"))
    assert ("webm does not take its audio (aac), which was left out; try .mkv" in said) == (suffix == ".webm")
    streams = probed(target)
    if streams is not None:
        assert [s["codec_name"] for s in streams if s["codec_type"] == "subtitle"] == [KEPT[suffix]] * 2
        assert sum(s["codec_type"] == "audio" for s in streams) == (0 if suffix == ".webm" else 2)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_what_mp4_holds_comes_back(tmp_path, mga_video, suffix):
    """From a container whose subtitles and cover are others."""
    with_everything(tmp_path / "in.mkv", tmp_path)
    mga_video(tmp_path / "in.mkv", "-o", tmp_path / "middle.mp4")
    said = mga_video(tmp_path / "middle.mp4", "-o", tmp_path / f"out{suffix}")
    assert ("its subtitles (mov_text) became subrip" in said) == (suffix == ".mkv")
    assert "left out" not in said
    assert [text for _, text in subtitles(tmp_path / f"out{suffix}", 1)] == SHOWN
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert len(container.streams.audio) == 2
        (cover,) = [s for s in container.streams.video if s.disposition & av.stream.Disposition.attached_pic]
        assert next(container.decode(cover)).width == 32
        assert cover.metadata.get("filename", "cover.jpg") == "cover.jpg"


def test_a_codec_that_a_container_only_lists_is_left_out(tmp_path, mga_video):
    """Opus is among those of .mov, whose header then cannot be written."""
    make(tmp_path / "plain.mkv", pictures(2, 32, 32))
    with av.open(str(tmp_path / "plain.mkv")) as source, av.open(str(tmp_path / "in.mkv"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        voice = out.add_stream("libopus", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        for packet in [*source.demux(video=0)][:2]:
            packet.stream = stream
            out.mux(packet)
        out.mux(voice.encode(frame))
        out.mux(voice.encode(None))
    said = mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mov")
    assert "mov does not take its audio (opus), which was left out; try .mkv" in said
    mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "opus"


def test_another_video_is_said_to_be_left_out(tmp_path, mga_video):
    make(tmp_path / "plain.mkv", pictures(2, 32, 32))
    with av.open(str(tmp_path / "plain.mkv")) as source, av.open(str(tmp_path / "in.mkv"), "w") as out:
        streams = [out.add_stream_from_template(source.streams.video[0]) for _ in range(2)]
        for packet in [*source.demux(video=0)][:2]:
            for stream in streams:
                again = av.Packet(bytes(packet))
                again.pts, again.dts, again.time_base = packet.pts, packet.dts, packet.time_base
                again.stream, again.is_keyframe = stream, True
                out.mux(again)
    said = mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv")
    assert "only its first video was upscaled, and the other (ffv1) was left out; `ffmpeg -i IN -map 0:1 " in said


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".m4v"])
@pytest.mark.parametrize("codec", [None, *CODECS])
def test_codecs_and_containers(tmp_path, mga_video, model_file, capsys, suffix, codec):
    """What is written can be read; what a container does not take is said before anything is computed."""
    make(tmp_path / "in.mkv", pictures(2, 64, 64))
    target, asked = tmp_path / f"out{suffix}", [] if codec is None else ["--codec", codec]
    if codec is not None and codec not in TAKEN[CONTAINERS[suffix]]:
        words = ["video", str(tmp_path / "in.mkv"), "-o", str(target), *asked, "--model", str(model_file)]
        assert main(words) == 1
        assert f"{suffix} does not take {codec}; choose --codec " in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
        return
    mga_video(tmp_path / "in.mkv", "-o", target, *asked)
    with av.open(str(target)) as container:
        assert len(list(container.decode(video=0))) == 2
        found = container.streams.video[0].codec_context.codec.canonical_name
    assert found == (codec or ("av1" if suffix == ".webm" else "h264"))


@pytest.mark.parametrize("time", [10**7, -(10**12)])
def test_encoders_need_not_know_when_pictures_are_decoded(tmp_path, mga_video, monkeypatch, time):
    """x265 leaves it undefined in a part of fewer pictures than it looks ahead, as a film's last part may be."""
    begun = encoding._Encoder.__init__

    def undefined(encoder, *settings):
        begun(encoder, *settings)
        encode = encoder.stream.encode

        def packets(picture):
            for packet in encode(picture):
                packet.dts = time
                yield packet

        encoder.stream = SimpleNamespace(encode=packets)

    monkeypatch.setattr(encoding._Encoder, "__init__", undefined)
    make(tmp_path / "in.mkv", pictures(2, 64, 64))
    mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", "hevc")
    with av.open(str(tmp_path / "in.mkv")) as before, av.open(str(tmp_path / "out.mkv")) as after:
        assert [frame.time for frame in after.decode(video=0)] == [frame.time for frame in before.decode(video=0)]


@pytest.mark.parametrize("codec", CODECS)
def test_results_that_are_too_small_for_a_codec_are_refused(tmp_path, model_file, capsys, codec):
    """By the sides that its encoder takes, which makes the smallest."""
    make(tmp_path / "in.mkv", [np.full((32, 32, 3), 90, np.uint8)] * 3)
    arguments = [str(tmp_path / "in.mkv"), "--model", str(model_file), "--codec", codec, "-o"]
    least = CODECS[codec].least
    assert main(["video", *arguments, str(tmp_path / "least.mkv"), "--size", f"{least}x{least}"]) == 0
    with av.open(str(tmp_path / "least.mkv")) as container:
        assert [(frame.width, frame.height) for frame in container.decode(video=0)] == [(least, least)] * 3
    capsys.readouterr()
    if least == 1:
        return
    assert main(["video", *arguments, str(tmp_path / "small.mkv"), "--size", f"{least - 1}x{least - 1}"]) == 1
    small = f"{least - 1}x{least - 1} is too small for {codec}, which takes sides of {least} pixels or more"
    assert capsys.readouterr().err == f"mga: video: {small}; ask for a larger result\n"
    assert [path.name for path in tmp_path.iterdir() if "small" in path.name] == []


def test_a_quality_that_a_codec_does_not_have_is_refused(tmp_path, model_file, capsys):
    """x264 takes 99 for 51 without a word, the others end with numbers of theirs."""
    make(tmp_path / "in.mkv", pictures(2))
    for codec, worst in (("h264", 51), ("hevc", 51), ("av1", 63)):
        for crf in (-1, worst + 1):
            arguments = ["--codec", codec, "--crf", str(crf), "-o", str(tmp_path / "out.mkv")]
            assert main(["video", str(tmp_path / "in.mkv"), "--model", str(model_file), *arguments]) == 1
            said = f"mga: video: --crf of {codec} is from 0 to {worst}, got {crf}\n"
            assert capsys.readouterr().err == said
    assert not (tmp_path / "out.mkv").exists()


def test_two_runs_do_not_make_one_video(tmp_path, model_file, capsys, monkeypatch):
    """Or parts of both would be in it: the second one is told so, whatever it is asked, and the first goes on."""
    make(tmp_path / "in.mkv", pictures(4))
    out, ended = tmp_path / "out.mkv", []
    arguments = ["video", str(tmp_path / "in.mkv"), "-o", str(out), "--model", str(model_file)]
    real = Frames.upscale

    def meanwhile(self, rgb):
        monkeypatch.setattr(Frames, "upscale", real)
        for words in ([], ["--overwrite"], ["--no-reuse", "--overwrite"]):
            ended.append((main([*arguments, *words]), capsys.readouterr().err))
        return real(self, rgb)

    monkeypatch.setattr(Frames, "upscale", meanwhile)
    assert main(arguments) == 0
    said = f"mga: video: another run is making {out}; wait until it has ended, or choose another name\n"
    assert ended == [(1, said)] * 3
    assert len(list(av.open(str(out)).decode(video=0))) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]
    assert main([*arguments, "--overwrite"]) == 0
