"""Maps of what layers made of the last frame of a film: less work, the same bytes, and never those of another frame."""

import numpy as np
import pytest
import torch
from film_networks import changed, image_of, network_of

from mga_kernels import MaskGuidedSR
from mga_kernels.engine import Frames
from mga_kernels.runtimes.cpu.changes import Changes

KEPT = 1 << 40  # bytes of room for maps


def test_maps_of_the_last_frame_are_less_work_and_those_of_another_are_not_taken():
    model, image = MaskGuidedSR(network_of("span"), runtime="own", dtype="float32"), image_of(47, 91)
    parts, before = model._runner.plan(47, 91).in_parts(), model.upscale(image)
    frame, held = changed(image, (35, 71, 1, 1)), model._runner.held()
    different = (frame != image).any(axis=2)
    without = parts.choose(different, 0)
    assert parts.choose(different, KEPT) < 0.6 * without
    made, whole = parts.run(torch.from_numpy(frame), before)
    assert whole
    assert model._runner.held() - held == parts._maps.bytes > 0  # which counts as memory of the plan
    parts.choose(different, 0)  # they stay where they are
    assert not parts.run(torch.from_numpy(image), made)[1]
    parts.choose(different, KEPT)
    again, whole = parts.run(torch.from_numpy(frame), before)  # of the same image, but another film's
    assert whole
    assert np.array_equal(again, made)


def test_maps_that_a_failure_left_half_made_are_made_anew(monkeypatch):
    model, image = MaskGuidedSR(network_of("span"), runtime="own", dtype="float32"), image_of(47, 91)
    parts, made = model._runner.plan(47, 91).in_parts(), model.upscale(image)
    frames = [changed(image, (20 + i, 30, 3, 3)) for i in range(3)]
    for frame, fails in zip(frames, (False, True, False), strict=True):
        parts.choose((frame != image).any(axis=2), KEPT)
        if fails:
            monkeypatch.setattr(parts.plan, "coarse", lambda image, out: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                parts.run(torch.from_numpy(frame), made)
            monkeypatch.undo()
            continue
        made, whole = parts.run(torch.from_numpy(frame), made)
        assert whole
        assert np.array_equal(made, model.upscale(frame))


@pytest.mark.parametrize("kept", [True, False])
def test_maps_take_a_part_of_the_memory_that_is_left(kept, monkeypatch):
    model, scene = MaskGuidedSR(network_of("span"), runtime="own", dtype="float32"), image_of()
    model.upscale(scene)
    needed = model._runner.plan(83, 150).in_parts()._maps.bytes
    monkeypatch.setattr(model._runner.budget, "room", lambda held: 4 * needed + (0 if kept else -4))
    frames = Frames(model)
    for i in range(4):
        frame = changed(scene, (40, 70 + i, 2, 2))
        assert np.array_equal(frames.upscale(frame), model.upscale(frame))
    assert frames.told.parts == (2 if kept else 3)


def test_maps_that_would_be_written_twice_are_apart():
    """As EDSR's, whose blocks write over what they read; where they cannot be apart they are not kept."""
    for possible in (True, False):
        model = MaskGuidedSR(network_of("edsr"), runtime="own", dtype="float32")
        plan, image = model._runner.plan(47, 91), image_of(47, 91)
        trunk = model._runner.planner.trunk
        assert [stage.out for stage in trunk.stages].count("x") > 1
        if not possible:
            trunk.apart = trunk
        changes = Changes(plan)
        assert changes._once == possible
        frame, made = image, model.upscale(image)
        for step in range(2):
            last, frame = frame, changed(image, (20, 30 + step, 3, 3))
            changes.choose((frame != last).any(axis=2), KEPT)
            made, whole = changes.run(torch.from_numpy(frame), made)
            assert whole == (possible and step == 0)
            assert np.array_equal(made, model.upscale(frame))


def test_room_is_asked_for_until_maps_have_theirs(monkeypatch):
    """What the system has left is many small files to read, for each frame."""
    model, scene, asked = MaskGuidedSR(network_of("span"), runtime="own", dtype="float32"), image_of(), []
    frames = Frames(model)
    frames.upscale(scene)
    monkeypatch.setattr(model._runner.budget, "room", lambda held: (asked.append(1), KEPT)[1])
    for i in range(4):
        frames.upscale(changed(scene, (40, 70 + i, 2, 2)))
    assert frames.told.parts == 3
    assert len(asked) == 1


def test_boxes_that_meet_are_worth_more_boxes():
    """Tiles in which several meet are computed once: apart they are less work than one box around both."""
    model, scene = MaskGuidedSR(network_of("span"), runtime="own", dtype="float32"), image_of(200, 300)
    model.upscale(scene)
    parts = model._runner.plan(200, 300).in_parts()

    def share(*places):
        return parts.choose((changed(scene, *places) != scene).any(axis=2), KEPT)

    one, other = (16, 16, 3, 3), (28, 28, 3, 3)
    assert share(one, other) < 0.85 * (share(one) + share(other))


def test_how_many_times_as_fast_is_over_a_frame_that_had_its_buffers(monkeypatch):
    """Those of the first frames are made and filled; one more is made where it is a small part of all the time."""
    model, scene, clock = MaskGuidedSR(network_of("compact"), runtime="own"), image_of(), [0.0]
    monkeypatch.setattr("mga_kernels.engine.frames.time.perf_counter", lambda: clock[0])
    upscale, seconds = model.upscale, iter([30.0, 1.0])

    def timed(image):
        clock[0] += next(seconds)
        return upscale(image)

    monkeypatch.setattr(model, "upscale", timed)
    frames = Frames(model)
    for _ in range(10):
        frames.upscale(scene)
    frames.compare()
    assert frames.told.whole == [30.0]
    frames.told.seconds = 1000.0
    frames.compare()
    assert (frames.told.frames, frames.told.whole, frames.told.speed_up) == (10, [30.0, 1.0], 0.01)
