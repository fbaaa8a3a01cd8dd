"""``mga video`` between other programs, by y4m, and of files that are damaged or begin late."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from itertools import islice
from types import SimpleNamespace

import commands
import numpy as np
import pytest
from films_made import TIMES, av, decoded, make, packets, pictures, repeating_command

from mga_kernels import MaskGuidedSR
from mga_kernels.video import Video
from mga_kernels.video.streams import Beside


@pytest.fixture
def mga_video(model_file, capsys, monkeypatch):
    return repeating_command(model_file, capsys, monkeypatch)


def piped(model_file, *arguments, data=b"", **options):
    """The command in a process of its own: its exit code, and what it wrote to both streams."""
    process = commands.start(
        "video", *arguments, "--model", model_file, "--dtype", "float32", stdin=subprocess.PIPE, text=False, **options
    )
    out, errors = process.communicate(data, timeout=120)
    return process.returncode, out, errors.decode()


def y4m(frames, rate=Fraction(25)):
    """As another program writes it, 4:4:4 so that colours stay."""
    height, width, _ = frames[0].shape
    stream = [b"YUV4MPEG2 W%d H%d F%d:%d Ip A1:1 C444\n" % (width, height, rate.numerator, rate.denominator)]
    for rgb in frames:
        picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv444p", dst_colorspace="ITU601")
        stream += [b"FRAME\n", picture.to_ndarray().tobytes()]
    return b"".join(stream)


@pytest.mark.parametrize("bits", [8, 10])
def test_y4m_in_and_out(tmp_path, model_file, bits):
    frames = pictures(height=60, width=80)
    code, out, said = piped(model_file, "-", "-o", "-", "--bits", bits, data=y4m(frames, Fraction(24000, 1001)))
    assert code == 0, said
    assert said.startswith("- -> - (160x120, 12 frames, ")
    sampling = b"C420p10 XYSCSS=420P10" if bits == 10 else b"C420mpeg2 XYSCSS=420MPEG2"
    assert out.partition(b"\n")[0] == b"YUV4MPEG2 W160 H120 F24000:1001 Ip A1:1 " + sampling + b" XCOLORRANGE=LIMITED"
    assert out.count(b"FRAME\n") == 12
    (tmp_path / "out.y4m").write_bytes(out)
    model = MaskGuidedSR.from_pretrained(model_file, dtype="float32")
    with av.open(str(tmp_path / "out.y4m")) as container:
        found = list(container.decode(video=0))
    assert [float(frame.time) for frame in found] == pytest.approx([number * 1001 / 24000 for number in range(12)])
    for rgb, frame in zip(frames, found, strict=True):
        brightness = frame.to_ndarray()[:120] / (4 if bits == 10 else 1)
        wanted = 16 + 219 / 255 * model.upscale(rgb) @ (0.299, 0.587, 0.114)
        assert np.median(np.abs(brightness - wanted)) <= 3  # of the input, its colours were rounded to YCbCr, too


def test_from_a_pipe_into_a_file(tmp_path, model_file):
    """Of a container only the pictures come, with their times, and nothing stays beside the result."""
    make(tmp_path / "in.mkv", pictures(), TIMES, sound=True)
    whole = (tmp_path / "in.mkv").read_bytes()
    code, out, said = piped(model_file, "-", "-o", tmp_path / "out.mkv", "--codec", "ffv1", data=whole)
    assert code == 0, said
    assert b"only its pictures were taken, as it can be read but once" in out
    assert packets(tmp_path / "out.mkv", "audio") == []
    before, after = decoded(tmp_path / "in.mkv"), decoded(tmp_path / "out.mkv")
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=0.002)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]
    code, _, said = piped(model_file, "-", "-o", tmp_path / "new.mkv", data=y4m(pictures())[:50])
    assert code == 1
    assert "standard input" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "ffv1"])
def test_encoders_say_nothing_of_themselves(tmp_path, model_file, codec):
    make(tmp_path / "in.mkv", pictures(2, 64, 64))
    code, _, said = piped(model_file, tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", codec)
    assert (code, said) == (0, "")


def test_times_that_y4m_cannot_say(tmp_path, model_file):
    for times, said in ((TIMES, True), ([3 * number for number in range(12)], False)):
        make(tmp_path / "in.mkv", pictures(), times)
        code, out, errors = piped(model_file, tmp_path / "in.mkv", "-o", "-")
        assert code == 0
        assert out.count(b"FRAME\n") == 12
        assert ("its times vary, and y4m has none: all frames are at " in errors) == said


def test_a_reader_that_leaves_ends_the_command(tmp_path, model_file):
    """With nothing said, and long before all frames are made."""
    make(tmp_path / "in.mkv", pictures(12) * 50)
    process = commands.start("video", tmp_path / "in.mkv", "-o", "-", "--model", model_file, text=False)
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["in.mkv", "-o", "-", "--codec", "hevc"], "standard output is y4m, raw pictures, so --codec and --crf"),
        (["in.mkv", "-o", "-", "--crf", "3"], "standard output is y4m, raw pictures, so --codec and --crf"),
        (["-", "-o", "out.avi"], "the extension .avi is none of"),
        (["-", "-o", "out.mkv"], "standard input cannot be read as a video"),
        (["./-", "-o", "out.mkv"], "/- does not exist"),
    ],
)
def test_what_pipes_cannot_be_asked_for(tmp_path, model_file, words, part):
    make(tmp_path / "in.mkv", pictures(2))
    code, out, said = piped(model_file, *words, cwd=tmp_path)
    assert (code, out) == (1, b"")
    assert part in said
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_a_terminal_is_no_video(mga_video, monkeypatch, tmp_path):
    for stdin, sentence in (
        (None, "there is no standard input; name a file instead of -"),
        (SimpleNamespace(buffer=1, isatty=lambda: True), "standard input is a terminal; send a video into the command"),
    ):
        monkeypatch.setattr(sys, "stdin", stdin)
        code, output = mga_video("-", "-o", tmp_path / "out.mkv")
        assert code == 1
        assert sentence in output.err


def test_a_file_that_was_cut_off_becomes_what_is_there(tmp_path, mga_video, monkeypatch):
    """A container that says how long it is, and one whose last packet is not whole."""
    frames = [np.roll(pictures(1, 60, 80)[0], 2 * number, axis=1) for number in range(120)]
    make(tmp_path / "whole.mkv", frames, None, "libx264", "yuv420p")
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "in.mkv").write_bytes(whole[: len(whole) // 2])
    code, output = mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", "ffv1")
    assert code == 0, output.err
    assert "it says that it is 4.0 s long and ends after " in output.out
    before, after = decoded(tmp_path / "in.mkv"), decoded(tmp_path / "out.mkv")
    assert 20 < len(after) == len(before) < 100
    with (
        av.open(str(tmp_path / "whole.mkv")) as container,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    whole = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "in.mp4").write_bytes(whole[: 2 * len(whole) // 3])
    begun = Video.__init__

    def by_one_thread(video, *args, **settings):  # several of a decoder's own swallow the fault of the last packet
        begun(video, *args, **settings)
        video.stream.thread_count = 1

    monkeypatch.setattr(Video, "__init__", by_one_thread)
    code, output = mga_video(tmp_path / "in.mp4", "-o", tmp_path / "out.mp4")
    assert code == 0, output.err
    assert "that cannot be decoded, and the frames of these are missing" in output.out
    assert 20 < len(decoded(tmp_path / "out.mp4")) < 120


def test_where_a_file_cannot_be_read_any_further_it_ends(tmp_path):
    """Its pictures, also those that the decoder still has, and its sound."""
    make(tmp_path / "in.mkv", pictures(), sound=True)
    with Video(tmp_path / "in.mkv") as video:
        whole = video.container

        def five(streams):
            yield from islice(whole.demux(streams), 5)
            raise av.error.InvalidDataError(1094995529, "Invalid data")

        video.container = SimpleNamespace(demux=five, close=whole.close, streams=whole.streams)
        assert (len(list(video.frames())), video.damaged) == (5, 1)
        assert video.notes == ["it has 1 part that cannot be decoded, and the frames of these are missing"]
        whole.seek(0)
        with av.open(str(tmp_path / "out.mkv"), "w") as out:
            source = SimpleNamespace(demux=five, streams=whole.streams, format=whole.format, chapters=whole.chapters)
            assert len(list(Beside(source, out, 0, []).packets(Fraction(0)))) == 5


def test_a_frame_in_the_middle_that_is_damaged_is_left_out(tmp_path, mga_video):
    frames = pictures()
    make(tmp_path / "whole.mkv", frames, TIMES)
    broken = 5
    with av.open(str(tmp_path / "whole.mkv")) as container, av.open(str(tmp_path / "in.mkv"), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(container.demux(video=0)):
            if packet.dts is None:
                continue
            given = packet
            if number == broken:
                given = av.Packet(b"no picture")
                given.pts, given.dts, given.time_base = packet.pts, packet.dts, packet.time_base
            given.stream = stream
            out.mux(given)
    code, output = mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", "ffv1")
    assert code == 0, output.err
    assert "it has 1 part that cannot be decoded, and the frames of these are missing" in output.out
    times = [time / 90 for number, time in enumerate(TIMES) if number != broken]
    assert [time for time, _ in decoded(tmp_path / "out.mkv")] == pytest.approx(times, abs=0.002)


@pytest.mark.parametrize(
    ("left_out", "note"),
    [
        ([], None),
        (range(24, 31), "it has no frames between 0.8 and 1.0 s; is it damaged?"),
        ([*range(24, 31), 40, 41], "it has no frames between 0.8 and 1.0 s, nor in 1 more such places; is it damaged?"),
        ([number for number in range(60) if number % 7 in (2, 3, 5)], None),  # whose pace is not even
    ],
)
def test_what_a_reader_jumps_over_is_said(tmp_path, left_out, note):
    """A damaged part of a Matroska file is passed over without an error, and 300 bytes cost 45 frames in silence."""
    times = [3 * number for number in range(60) if number not in left_out]
    make(tmp_path / "in.mkv", [np.full((8, 8, 3), number, np.uint8) for number in range(len(times))], times)
    with Video(tmp_path / "in.mkv") as video:
        assert len(list(video.frames())) == len(times)
        assert video.notes == ([] if note is None else [note])


def test_a_stream_that_began_hours_ago_begins_now(tmp_path, mga_video):
    """As those of cameras and stations do, with the sound as far from the pictures as it was."""
    make(tmp_path / "in.mp4", pictures(height=60, width=80), TIMES, "libx264", "yuv420p", sound=True)
    with av.open(str(tmp_path / "in.mp4")) as container, av.open(str(tmp_path / "in.ts"), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is not None:
                later = round(5000 / packet.time_base)
                packet.pts, packet.dts = packet.pts + later, packet.dts + later
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    with av.open(str(tmp_path / "in.ts")) as container:
        assert container.start_time > 4990e6
    code, output = mga_video(tmp_path / "in.ts", "-o", tmp_path / "out.mkv")
    assert code == 0, output.err

    def starts(path):
        with av.open(str(path)) as container:
            return [float(stream.start_time * stream.time_base) for stream in container.streams]

    before, after = starts(tmp_path / "in.ts"), starts(tmp_path / "out.mkv")
    assert after[0] < 1
    assert after[0] - after[1] == pytest.approx(before[0] - before[1], abs=0.03)
    times = [time for time, _ in decoded(tmp_path / "out.mkv")]
    assert np.subtract(times, times[0]) == pytest.approx([time / 90 for time in TIMES], abs=0.002)


def test_chapters_of_mp4_are_no_stream_that_is_missing(tmp_path, mga_video):
    make(tmp_path / "plain.mp4", pictures(height=60, width=80), None, "libx264", "yuv420p")
    chapters = [
        {"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}},
        {"id": 2, "start": 200, "end": 400, "time_base": Fraction(1, 1000), "metadata": {"title": "two"}},
    ]
    with av.open(str(tmp_path / "plain.mp4")) as container, av.open(str(tmp_path / "in.mp4"), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        out.set_chapters(chapters)
        for packet in container.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    code, output = mga_video(tmp_path / "in.mp4", "-o", tmp_path / "out.mp4")
    assert code == 0, output.err
    assert "left out" not in output.out
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [one["metadata"]["title"] for one in container.chapters()] == ["one", "two"]


def test_what_a_killed_run_was_writing_goes(tmp_path, mga_video):
    """Of a part, and of the result; the folder of parts goes, too."""
    make(tmp_path / "in.mkv", pictures(2))
    (tmp_path / "out.mkv.parts").mkdir()
    for folder in (tmp_path, tmp_path / "out.mkv.parts"):
        (folder / ".mga-0123456789abcdef.part").write_bytes(b"half")
    assert mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", "ffv1")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_hevc_has_the_name_that_players_know(tmp_path, mga_video, suffix):
    make(tmp_path / "in.mkv", pictures(2, 32, 32))
    assert mga_video(tmp_path / "in.mkv", "-o", tmp_path / f"out{suffix}", "--codec", "hevc")[0] == 0
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert container.streams.video[0].codec_context.codec_tag == ("\0\0\0\0" if suffix == ".mkv" else "hvc1")


def test_what_a_video_says_of_itself(tmp_path):
    make(tmp_path / "in.mkv", pictures(2))
    with Video(tmp_path / "in.mkv") as video:
        assert (video.name, video.start, video.damaged) == (str(tmp_path / "in.mkv"), 0, 0)
