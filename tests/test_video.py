"""``mga video``: frames, times, sound and colours, and a run that was broken off."""

from __future__ import annotations

import sys
from fractions import Fraction

import numpy as np
import pytest
from films_made import TIMES, av, broken_off, decoded, make, packets, pictures, repeated

import mga.upscaling.video
from mga_kernels import MaskGuidedSR
from mga_kernels.video import Video


@pytest.mark.usefixtures("few_frames_a_part")
def test_every_frame_is_what_an_image_becomes_at_its_time(tmp_path, mga_video, model_file):
    frames = pictures()
    make(tmp_path / "in.mkv", frames, TIMES)
    code, output = mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", "ffv1")
    assert (code, output.err) == (0, "")
    assert "(52x36, 12 frames, " in output.out
    model = MaskGuidedSR.from_pretrained(model_file, dtype="float32")
    before, after = decoded(tmp_path / "in.mkv"), decoded(tmp_path / "out.mkv")
    assert len(after) == 12
    for (time, rgb), (time_out, large) in zip(before, after, strict=True):
        assert abs(time - time_out) < 0.002  # Matroska counts milliseconds
        np.testing.assert_array_equal(large, model.upscale(rgb))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_sound_titles_and_times_are_kept(tmp_path, mga_video, codec, monkeypatch):
    monkeypatch.setattr(mga.upscaling.video, "PART", 7)
    monkeypatch.setattr(MaskGuidedSR, "upscale", repeated)
    frames = pictures(height=60, width=80)
    make(tmp_path / "in.mp4", frames, TIMES, "libx264", "yuv420p", sound=True)
    code, output = mga_video(tmp_path / "in.mp4", "-o", tmp_path / "out.mp4", "--codec", codec, "--crf", 5)
    assert code == 0, output.err
    before, after = decoded(tmp_path / "in.mp4"), decoded(tmp_path / "out.mp4")
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=1e-3)
    assert after[0][1].shape == (120, 160, 3)
    for (_, small), (_, large) in zip(before, after, strict=True):
        shrunk = large.reshape(60, 2, 80, 2, 3).mean(axis=(1, 3))
        assert np.median(np.abs(shrunk - small)) <= 2  # edges are softer, since chroma has a quarter of the pixels
    assert packets(tmp_path / "out.mp4", "audio") == packets(tmp_path / "in.mp4", "audio") != []
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["title"] == "otters"


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (6, False), (6, True), (1, True)])
def test_matrix_and_range_are_those_of_the_input(tmp_path, mga_video, monkeypatch, matrix, full):
    """A flat colour comes back as it was where they are read and written right."""
    monkeypatch.setattr(MaskGuidedSR, "upscale", repeated)
    frames = [np.full((32, 32, 3), (180, 70, 40), np.uint8)] * 3
    colours = {"colorspace": matrix, "color_range": 2 if full else 1, "color_primaries": 1, "color_trc": 1}
    make(tmp_path / "in.mkv", frames, None, "libx264", "yuv420p", **colours)
    assert mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--crf", 0)[0] == 0
    with av.open(str(tmp_path / "out.mkv")) as container:
        context = container.streams.video[0].codec_context
        assert (int(context.colorspace), int(context.color_range)) == (matrix, 2 if full else 1)
        assert (int(context.color_primaries), int(context.color_trc)) == (1, 1)
        picture = next(container.decode(video=0))
        names = {1: "ITU709", 6: "ITU601"}
        ranges = {"src_color_range": 2 if full else 1, "dst_color_range": 2}
        large = picture.reformat(format="rgb24", src_colorspace=names[matrix], **ranges).to_ndarray()
    assert large.shape == (64, 64, 3)
    assert np.abs(large.astype(int) - (180, 70, 40)).max() <= 4


@pytest.mark.usefixtures("few_frames_a_part")
def test_a_run_that_was_broken_off_goes_on(tmp_path, mga_video, monkeypatch):
    make(tmp_path / "in.mkv", pictures(), TIMES)
    words = [tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", "ffv1"]
    with broken_off(monkeypatch, MaskGuidedSR):
        assert mga_video(*words)[0] == 130
    parts = tmp_path / "out.mkv.parts"
    assert sorted(path.name for path in parts.iterdir()) == ["000000.nut", "recipe.json"]
    assert not (tmp_path / "out.mkv").exists()
    code, output = mga_video(*words, "--k", 0)
    assert code == 1
    assert (
        "holds a run with settings.k = None, this one has 0; run it as before, or start anew with --over" in output.err
    )
    upscale, done = MaskGuidedSR.upscale, []
    monkeypatch.setattr(MaskGuidedSR, "upscale", lambda *given, **more: (done.append(1), upscale(*given, **more))[1])
    code, output = mga_video(*words)
    assert code == 0
    assert len(done) == 7
    assert "12 frames, 5 of an earlier run" in output.out
    assert not parts.exists()
    resumed = decoded(tmp_path / "out.mkv")
    code, output = mga_video(*words)
    assert code == 1
    assert "it exists already" in output.err
    assert mga_video(*words, "--overwrite")[0] == 0
    for (time, one), (other_time, other) in zip(resumed, decoded(tmp_path / "out.mkv"), strict=True):
        assert time == other_time
        np.testing.assert_array_equal(one, other)


def test_rotation_and_shape_of_pixels_are_kept(tmp_path, mga_video):
    make(tmp_path / "in.mp4", pictures(3), None, "libx264", "yuv420p", rotation=90, sample_aspect_ratio=Fraction(4, 3))
    assert mga_video(tmp_path / "in.mp4", "-o", tmp_path / "out.mp4")[0] == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
        assert next(container.decode(video=0)).rotation == 90


@pytest.mark.parametrize(
    ("words", "size"),
    [(["--scale", "1.5"], (38, 26)), (["--width", "40"], (40, 28)), (["--scale", "1.5", "--codec", "ffv1"], (39, 27))],
)
def test_sizes(tmp_path, mga_video, words, size):
    make(tmp_path / "in.mkv", pictures(2))
    code, output = mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", *words)
    assert code == 0
    assert decoded(tmp_path / "out.mkv")[0][1].shape == (size[1], size[0], 3)
    assert ("39x27 became 38x26, since h264 needs even sides" in output.out) == (words == ["--scale", "1.5"])


def test_the_quality_of_the_picture(tmp_path, mga_video):
    """What a model has is taken, and what it has not is a sentence."""
    make(tmp_path / "in.mkv", pictures(2))
    command = tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", "ffv1", "--overwrite"
    for word in ("fast", "whole"):
        assert mga_video(*command, "--model", "span-x4-regions", "--quality", word)[0] == 0
        model = MaskGuidedSR.from_pretrained("span-x4-regions", dtype="float32", quality=word)
        for (_, rgb), (_, large) in zip(decoded(tmp_path / "in.mkv"), decoded(tmp_path / "out.mkv"), strict=True):
            np.testing.assert_array_equal(large, model.upscale(rgb))
    code, output = mga_video(*command, "--quality", "fast")
    assert code == 1
    assert "this model has no quality 'fast'" in output.err


def test_ten_bits_of_a_result(tmp_path, mga_video):
    make(tmp_path / "in.mkv", pictures(2))
    assert mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", "hevc", "--bits", 10)[0] == 0
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p10le"
    make(tmp_path / "ten.mkv", pictures(2), None, "libx265", "yuv420p10le")
    code, output = mga_video(tmp_path / "ten.mkv", "-o", tmp_path / "eight.mkv")
    assert code == 0
    assert "its 10 bits a value become 8; --bits 10 keeps them" in output.out


@pytest.mark.parametrize("scale", ["2", "1.5"])
def test_ten_bits_stay_ten(tmp_path, mga_video, monkeypatch, scale):
    """A ramp so smooth that 8 bits would show a fourth of its levels."""
    monkeypatch.setattr(MaskGuidedSR, "upscale", repeated)
    ramp = np.linspace(20000, 36000, 128).astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (32, 128, 3))), "rgb48le"
    )
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 32, "gbrp10le"
        for number in range(3):
            given = frame.reformat(format="gbrp10le")
            given.pts = number
            container.mux(stream.encode(given))
        container.mux(stream.encode(None))
    words = [tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", "ffv1", "--bits", 10, "--scale", scale]
    code, output = mga_video(*words)
    assert (code, output.err) == (0, "")
    assert "bits a value" not in output.out
    with av.open(str(tmp_path / "out.mkv")) as container:
        pictures = [one.reformat(format="rgb48le").to_ndarray() for one in container.decode(video=0)]
    assert len(pictures) == 3
    levels = pictures[0][8, :, 0].astype(int)
    assert len(np.unique(levels)) > 120  # 8 bits have 62 between both ends
    assert (levels[0], levels[-1]) == (pytest.approx(20000, abs=70), pytest.approx(36000, abs=70))


def interlaced(path):
    make(path, pictures(2, 32, 32), None, "libx264", "yuv420p")
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"flags": "+ildct+ilme", "x264-params": "tff=1"})
        stream.height = stream.width = 32
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def sound_only(path):
    with av.open(str(path), "w") as out:
        voice = out.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        out.mux(voice.encode(frame))
        out.mux(voice.encode(None))


def half(path):
    make(path, pictures(12, 64, 64), None, "libx264", "yuv420p")
    path.write_bytes(path.read_bytes()[:300])


CASES = {
    "interlaced": (interlaced, "is interlaced, and its halves would be upscaled as one picture; deinterlace it first"),
    "sound": (sound_only, "has no video stream; `mga upscale` takes images"),
    "text": (lambda path: path.write_text("a text"), "cannot be read as a video"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as a video"),
    "half": (half, "in.mkv"),
    "missing": (lambda path: None, "does not exist"),
    "folder": (lambda path: path.mkdir(), "is no file"),
    "list": (
        lambda path: path.write_text("ffconcat version 1.0\nfile 'http://localhost:1/a.mkv'\n"),
        "cannot be read as a video",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_upscaled_is_a_sentence(tmp_path, mga_video, case):
    write, part = CASES[case]
    write(tmp_path / "in.mkv")
    code, output = mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv")
    assert code == 1
    assert part in output.err
    assert output.err.count("\n") == 1
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["-o", "out.avi"], "the extension .avi is none of .mp4"),
        (["-o", "in.mkv", "--overwrite"], "it is the input itself"),
        (["-o", "out.mkv", "--codec", "divx"], "there is no codec 'divx'; choose one of h264"),
        (["-o", "out.mkv", "--codec", "ffv1", "--crf", "3"], "without loss, so --crf has no meaning"),
        (["-o", "out.mkv", "--scale", "3"], "is for x2, not for --scale 3"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path, mga_video, monkeypatch, words, part):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "in.mkv", pictures(2))
    before = (tmp_path / "in.mkv").read_bytes()
    code, output = mga_video("in.mkv", *words)
    assert code == 1
    assert part in output.err
    assert (tmp_path / "in.mkv").read_bytes() == before


def test_without_pyav(tmp_path, mga_video, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "in.mkv").write_bytes(b"")
    code, output = mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv")
    assert code == 1
    assert "videos need PyAV: pip install av, or this package with its extra video" in output.err


def test_parts_that_were_never_made_are_in_nobodys_way(tmp_path, mga_video, monkeypatch):
    """Nor does a new run touch what else is in the folder."""
    make(tmp_path / "in.mkv", pictures(2))
    words = [tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", "ffv1"]

    def fails(model, image):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MaskGuidedSR, "upscale", fails)
        assert mga_video(*words)[0] == 130
    assert mga_video(*words, "--k", 0)[0] == 0
    assert not (tmp_path / "out.mkv.parts").exists()
    (tmp_path / "out.mkv.parts").mkdir()
    (tmp_path / "out.mkv.parts" / "mine.nut").write_text("not a part")
    assert mga_video(*words, "--overwrite")[0] == 0
    assert [path.name for path in (tmp_path / "out.mkv.parts").iterdir()] == ["mine.nut"]


def test_frames_that_are_done_are_not_converted(tmp_path):
    make(tmp_path / "in.mkv", pictures(), TIMES)
    with Video(tmp_path / "in.mkv") as video:
        all_frames = list(video.frames())
    with Video(tmp_path / "in.mkv") as video:
        video._to_rgb = lambda av, frame: frame.pts
        assert [frame.rgb for frame in video.frames(7)] == [frame.pts for frame in all_frames[7:]]
