"""``mga video``: of a frame that is as the one before, or nearly so, only what differs is made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from films_made import TIMES, broken_off, decoded, make, packets, pictures

from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import save_model
from mga_kernels.engine import Frames
from mga_kernels.networks import WholeConfig, WholeNetwork
from mga_kernels.video.encoding import Pictures


@pytest.fixture
def whole(tmp_path):
    """Of a network that runs in parts on any processor."""
    path = tmp_path / "whole.safetensors"
    torch.manual_seed(0)
    save_model(path, WholeNetwork(WholeConfig("compact", 2, 2, {"channels": 16})), {"weights": "none"}, {"note": ""})
    return path


OWN = "--runtime", "own"


def still_but_for_an_object(count=12, height=64, width=96):
    scene = pictures(1, height, width)[0]
    frames = []
    for number in range(count):
        frame = scene.copy()
        frame[20:26, 4 * (number // 2) : 4 * (number // 2) + 6] = (200, 40, 60)  # a step every second frame
        frames.append(frame)
    return frames


@pytest.mark.usefixtures("few_frames_a_part")
@pytest.mark.parametrize("words", [[], ["--no-reuse"], ["--tolerance", "3"]])
def test_what_does_not_change_is_taken_from_the_frame_before(tmp_path, mga_video, whole, monkeypatch, words):
    """Each frame is still what an image becomes, at its time, with the sound; also where the run was broken off."""
    make(tmp_path / "in.mkv", still_but_for_an_object(), TIMES, sound=True)
    command = [
        tmp_path / "in.mkv",
        "-o",
        tmp_path / "out.mkv",
        "--codec",
        "ffv1",
        "--model",
        whole,
        *OWN,
        *words,
    ]
    with broken_off(monkeypatch, Frames):
        assert mga_video(*command)[0] == 130
    code, output = mga_video(*command)
    assert (code, output.err) == (0, "")
    assert "12 frames, 5 of an earlier run" in output.out
    told = "of the work was taken from the frame before (3 of 7 frames were the same, 2 in parts), "
    told = told.replace("2 in", "1 in") if "--tolerance" in words else told  # then each part of the run begins anew
    assert (told in output.out) == (words != ["--no-reuse"])
    model = MaskGuidedSR.from_pretrained(whole, dtype="float32", runtime="own")
    before, after = decoded(tmp_path / "in.mkv"), decoded(tmp_path / "out.mkv")
    for (time, rgb), (time_out, large) in zip(before, after, strict=True):
        assert abs(time - time_out) < 0.002
        np.testing.assert_array_equal(large, model.upscale(rgb))
    assert packets(tmp_path / "out.mkv", "audio") == packets(tmp_path / "in.mkv", "audio") != []


def test_a_frame_that_is_the_same_is_converted_once(tmp_path, mga_video, whole, monkeypatch):
    """Also where results are shrunk."""
    converted, of_all = Pictures._converted, []
    monkeypatch.setattr(Pictures, "_converted", lambda self, rgb: (of_all.append(1), converted(self, rgb))[1])
    make(tmp_path / "in.mkv", still_but_for_an_object(6))
    for words in ([], ["--scale", "1.5"]):
        of_all.clear()
        command = [tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--model", whole, *OWN, "--overwrite", *words]
        assert mga_video(*command)[0] == 0
        assert len(of_all) == 3


@pytest.mark.parametrize("pix_fmt", ["gray", "bgra"])
def test_of_grey_and_transparent_frames_what_stays_is_kept_too(tmp_path, mga_video, whole, pix_fmt):
    make(tmp_path / "in.mkv", still_but_for_an_object(6), None, "ffv1", pix_fmt)
    code, output = mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", "--codec", "ffv1", "--model", whole, *OWN)
    assert code == 0, output.err
    assert "3 of 6 frames were the same, 1 in parts" in output.out
    model = MaskGuidedSR.from_pretrained(whole, dtype="float32", runtime="own")
    for (_, rgb), (_, large) in zip(decoded(tmp_path / "in.mkv"), decoded(tmp_path / "out.mkv"), strict=True):
        np.testing.assert_array_equal(large, model.upscale(rgb))


@pytest.mark.usefixtures("few_frames_a_part")
def test_with_a_tolerance_a_run_that_goes_on_makes_what_one_at_a_time_does(tmp_path, mga_video, whole, monkeypatch):
    random = np.random.default_rng(1)
    frames = [(frame + random.integers(0, 4, frame.shape)).astype(np.uint8) for frame in still_but_for_an_object()]
    make(tmp_path / "in.mkv", frames, TIMES)
    words = ["--codec", "ffv1", "--model", whole, *OWN, "--tolerance", 3]
    assert mga_video(tmp_path / "in.mkv", "-o", tmp_path / "one.mkv", *words)[0] == 0
    with broken_off(monkeypatch, Frames):
        assert mga_video(tmp_path / "in.mkv", "-o", tmp_path / "two.mkv", *words)[0] == 130
    code, output = mga_video(tmp_path / "in.mkv", "-o", tmp_path / "two.mkv", *words[:-1], 2)
    assert code == 1
    assert "tolerance = 3, this one has 2" in output.err
    assert mga_video(tmp_path / "in.mkv", "-o", tmp_path / "two.mkv", *words)[0] == 0
    for (_, one), (_, two) in zip(decoded(tmp_path / "one.mkv"), decoded(tmp_path / "two.mkv"), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("word", ["-1", "256", "two"])
def test_a_tolerance_that_is_none(tmp_path, mga_video, word):
    code, output = mga_video(tmp_path / "in.mkv", "-o", tmp_path / "out.mkv", f"--tolerance={word}")
    assert code == 2
    assert f"the tolerance is a number of levels from 0 to 255, got '{word}'" in output.err
