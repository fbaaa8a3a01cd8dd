"""Frames of a film of which parts change: the same bytes as when each is made as a whole, and less work."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from film_networks import SHAPES, changed, image_of, network_of
from map_layers import Case, map_of, poisoned

from mga_kernels import MaskGuidedSR, ops
from mga_kernels.engine import Frames
from mga_kernels.errors import InputError
from mga_kernels.networks import RegionConfig, RegionNetwork, WholeConfig, WholeNetwork
from mga_kernels.ops.convolution.map_layout import read
from mga_kernels.records import FrameRecord, LayerRecord, MapRecord
from mga_kernels.runtimes.cpu.boxes import Boxes, boxes_of
from mga_kernels.runtimes.cpu.changes import Changes, _Layer
from mga_kernels.runtimes.cpu.rows import Use

HEIGHT, WIDTH = 50, 131
SHIPPED = ("span-x4-fast", "realesr-anime-x4")


# One layer.


def layer_of(case, side):
    return _Layer(case.record(), [], None, side, 1, 1, False)


def computed(case, image, tiles=None):
    out = poisoned(case.outputs, HEIGHT, WIDTH, 7.0)
    record = case.record() if tiles is None else case.record(tiles=0)
    lists = [] if tiles is None else [tiles]
    maps, frame = [MapRecord(), MapRecord()], FrameRecord(HEIGHT, WIDTH)
    ops.convolve_maps_([map_of(image), out], maps, [], [case.packed], [case.epilogue], [record], lists, frame)
    return read(out, HEIGHT, WIDTH, 0, case.outputs)


LAYERS = [(3, 4), (3, 6), (5, 4), (3, 0), (1, 0), (5, 0), (9, 0)]
PIXELS = [(0, 0), (HEIGHT - 1, WIDTH - 1), *((12 + i, 12 + (5 * i) % 12) for i in range(12)), (11, 130), (49, 60)]


def mark(pixel, pixels=1):
    first = np.array([pixel])
    return Boxes(first, first + pixels)


@pytest.mark.parametrize(("size", "tile"), LAYERS)
def test_what_a_layer_makes_is_other_only_around_what_it_reads(size, tile):
    """Bit by bit, of any pixel of a tile."""
    torch.manual_seed(3)
    case, image = Case(16, 16, size, tile, slope=0.1), torch.randn(16, HEIGHT, WIDTH)
    before, layer = computed(case, image), layer_of(case, tile or 4)
    for pixel in PIXELS:
        other = image.clone()
        other[(slice(None), *pixel)] = torch.randn(16)
        differs = (computed(case, other) != before).any(dim=0).numpy()
        around = layer.makes(mark(pixel)).inside(HEIGHT, WIDTH).marks(HEIGHT, WIDTH)
        assert differs.any()
        assert not (differs & ~around).any(), pixel


@pytest.mark.parametrize(("size", "tile"), LAYERS)
def test_what_a_layer_makes_depends_on_nothing_but_what_is_around_it(size, tile):
    torch.manual_seed(3)
    case, image = Case(16, 16, size, tile, slope=0.1), torch.randn(16, HEIGHT, WIDTH)
    before, side = computed(case, image), tile or 4
    layer = layer_of(case, side)
    for pixel in PIXELS:
        around = torch.from_numpy(layer.sees(mark(pixel)).inside(HEIGHT, WIDTH).marks(HEIGHT, WIDTH))
        other = torch.where(around, image, 100 * torch.randn(16, HEIGHT, WIDTH))
        number = pixel[0] // side * -(-WIDTH // side) + pixel[1] // side
        found = computed(case, other, torch.tensor([number], dtype=torch.int32))
        assert torch.equal(found[(slice(None), *pixel)], before[(slice(None), *pixel)]), pixel


def flow(*layers):
    """Changes of a call of such layers, (kernel, reads, slot), the last of which makes the picture."""
    image = torch.zeros(8)
    made = object.__new__(Changes)
    made.size, made.plan = (HEIGHT, WIDTH), SimpleNamespace(image=SimpleNamespace(data=image, groups=1))
    names = {"image": str(image.data_ptr())}
    made.layers = [
        _Layer(
            *(
                LayerRecord(x=0, inputs=8, out=1, outputs=8, size=size),
                [Use(names.get(name, name), 0, 1, 0) for name in read],
            ),
            *(Use(slot, 0, 1, 0), 4, 1, 1, slot == "picture"),
        )
        for size, read, slot in layers
    ]
    return made


def pixels(boxes):
    return (*boxes.first[0].tolist(), *boxes.behind[0].tolist())


def test_what_is_added_counts_as_what_is_read_does():
    """It may look further than that."""
    changes = flow((1, ["image"], "near"), (9, ["image"], "far"), (1, ["near", "far"], "sum"), (3, ["sum"], "picture"))
    found = changes._changing(mark((20, 30)))
    assert [pixels(boxes) for boxes in found] == [
        (20, 30, 21, 31),
        (16, 26, 25, 35),
        (16, 26, 25, 35),
        (15, 25, 26, 36),
    ]
    found = changes._needed(found)
    assert [pixels(boxes) for boxes in found] == [(11, 23, 29, 37)] * 3 + [(12, 24, 28, 36)]
    found = changes._needed([None, None, None, mark((16, 28), 4)])
    assert [pixels(boxes) for boxes in found] == [(15, 27, 21, 33)] * 3 + [(16, 28, 20, 32)]


def test_what_is_not_read_any_more_is_not_needed():
    """Of a slot that is written again only what was read before counts for the first result."""
    changes = flow((3, ["image"], "x"), (1, ["x"], "y"), (3, ["image"], "x"), (5, ["x", "y"], "picture"))
    found = changes._needed([None, None, None, mark((16, 28), 4)])
    assert [pixels(boxes) for boxes in found] == [(16, 28, 20, 32)] * 2 + [(14, 26, 22, 34), (16, 28, 20, 32)]


def test_the_image_that_is_added_to_the_picture_is_enlarged_bilinearly():
    found = flow((1, ["image"], "picture"))._changing(mark((20, 30)))
    assert pixels(found[0]) == (19, 29, 22, 32)


def test_boxes_hold_all_that_is_marked_and_are_apart_where_that_is_less_work():
    random = np.random.default_rng(0)
    for _ in range(50):
        marks = np.zeros((67, 130), bool)
        for top, left in zip(random.integers(0, 67, 5), random.integers(0, 130, 5), strict=True):
            marks[top : top + random.integers(1, 9), left : left + random.integers(1, 30)] = True
        for margin in (0, 3, 40, 1000):
            boxes = boxes_of(marks, margin)
            assert not (marks & ~boxes.marks(67, 130)).any()
            assert len(boxes.first) == 1 or margin < 1000
    corners = np.zeros((67, 130), bool)
    corners[0, 0] = corners[66, 129] = True
    assert [len(boxes_of(corners, margin).first) for margin in (3, 1000)] == [2, 1]
    assert boxes_of(corners, 3).marks(67, 130).sum() == 2
    chequered = np.indices((1000, 1000)).sum(0) % 100 == 0
    assert 1 <= len(boxes_of(chequered, 0).first) <= 32


# Whole networks.

CORNERS = [(0, 0, 1, 1), (-1, 0, 1, 1), (0, -1, 1, 1), (-1, -1, 1, 1)]
PLACES = [
    CORNERS,
    [(0, 70, 1, 2), (-1, 40, 1, 1), (20, 0, 2, 1), (31, -1, 1, 1)],  # borders
    [(35, 71, 1, 1)],  # at seams of tiles
    [(36, 72, 1, 1)],
    [(20, 40, 9, 7)],
    [(40, 0, 1, 91)],
]


KEPT = 1 << 40  # bytes of room for maps


@pytest.mark.parametrize("room", [0, KEPT])
@pytest.mark.parametrize("name", SHAPES)
def test_parts_are_those_of_the_whole_frame(name, room):
    """Whatever the maps held before. With maps of the last frame, each of which is followed by one from another."""
    model, image = MaskGuidedSR(network_of(name), runtime="own", dtype="float32"), image_of(47, 91)
    parts, before = model._runner.plan(47, 91).in_parts(), model.upscale(image)
    keeps = bool(room)
    last, made = image, before
    for number, place in enumerate(PLACES):
        frame = changed(image, *place)
        model.upscale(changed(image[::-1], (0, 0, 47, 91)))
        share = parts.choose((frame != last).any(axis=2), room)
        assert 0 < share <= (0.99 if keeps else 1)
        made, whole = parts.run(torch.from_numpy(frame), made)
        assert whole == (keeps and number == 0)
        assert np.array_equal(made, model.upscale(frame)), place
        last = frame


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", [*SHIPPED, "fsrcnn-x2"])
def test_every_frame_is_what_the_model_makes_of_it(name, threads, monkeypatch):
    """Of a film with an object that moves, flashes at the borders, a cut, a change of the size and frames that stay."""
    monkeypatch.setattr("mga_kernels.engine.frames.MOST_KEPT", 1.0)  # of frames so small any pixel sees nearly all
    scene, other = image_of(40, 70), image_of(40, 70, seed=2)
    moving = [changed(scene, (20 + i, 30 + 3 * i, 8, 8)) for i in range(3)]
    flashes = [changed(scene, place) for place in CORNERS]
    film = [scene, *moving, moving[-1], *flashes, scene, other, changed(other, (5, 5, 3, 3)), image_of(41, 70), scene]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = MaskGuidedSR.from_pretrained(name, runtime="own")
        frames = Frames(model)
        for number, frame in enumerate(film):
            assert np.array_equal(frames.upscale(frame), model.upscale(frame)), number
    finally:
        torch.set_num_threads(before)
    told = frames.told
    assert (told.frames, told.same) == (len(film), 1)
    assert told.parts == (0 if name == "fsrcnn-x2" else 8)
    assert len(told.whole) + told.parts + told.same == told.frames
    assert 0 < told.share < 0.7
    if name == "fsrcnn-x2":
        assert "a model that refines cells by fsrcnn makes a frame in one piece" in str(told)
    else:
        assert f"(1 of {len(film)} frames were the same, 8 in parts), " in str(told)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 9])
def test_frames_of_a_few_pixels(side):
    model = MaskGuidedSR(network_of("rrdbnet x2"), runtime="own")
    frames, image = Frames(model), image_of(side, 31)
    for place in ((0, 0, 1, 1), (-1, -1, 1, 1), (0, 9, 9, 2)):
        frame = changed(image, place)
        assert np.array_equal(frames.upscale(frame), model.upscale(frame))


def of_regions():
    torch.manual_seed(4)
    small = WholeConfig("compact", 4, 1, {"channels": 16})
    return RegionNetwork(RegionConfig(small, SHAPES["compact"])).eval()


def test_what_looks_at_the_whole_frame_is_made_as_a_whole():
    """Each with its reason, told once."""
    image = image_of(24, 40)
    torch.manual_seed(0)
    models = {
        "parts of a frame run in convolutions of our own": MaskGuidedSR(network_of("span"), runtime="pytorch"),
        "on a CPU and not in tiles": MaskGuidedSR(network_of("edsr"), runtime="own", tile=32),
        "a model that refines cells by compact makes a frame in one piece": MaskGuidedSR(of_regions(), runtime="own"),
        "steps between its convolutions": MaskGuidedSR(
            WholeNetwork(WholeConfig("rfdn", 4, 4, input_range="0..255")), runtime="own", dtype="float32"
        ),
    }
    for reason, model in models.items():
        wide = np.concatenate([image, image], axis=1)
        frames = Frames(model)
        for place in ((3, 4, 2, 2), (9, 30, 2, 2), (9, 30, 2, 2)):
            frame = changed(wide, place)
            assert np.array_equal(frames.upscale(frame), model.upscale(frame))
        assert (frames.told.same, frames.told.parts) == (1, 0)
        assert str(frames.told).count(reason) == 1


def test_a_cut_and_a_hand_that_shakes_are_made_as_a_whole():
    """And what goes on from there in parts again."""
    model, image, other = MaskGuidedSR(network_of("compact"), runtime="own"), image_of(), image_of(seed=2)
    film = [image, other, changed(other, (9, 9, 2, 2)), np.roll(other, 1, axis=1), np.roll(other, 2, axis=1)]
    frames = Frames(model)
    for frame in film:
        assert np.array_equal(frames.upscale(frame), model.upscale(frame))
    assert (frames.told.parts, len(frames.told.whole), frames.told.reason) == (0, 5, "")
    frame = changed(film[-1], (9, 9, 2, 2))
    frames.upscale(frame)  # which fills the maps that the next one is made with
    last = changed(frame, (12, 9, 2, 2))
    assert np.array_equal(frames.upscale(last), model.upscale(last))
    assert (frames.told.parts, len(frames.told.whole)) == (1, 6)


def test_what_parts_of_an_image_would_add_up_in_another_order_is_made_as_a_whole():
    """As 9x9 layers, which whole images have in blocks."""
    model = MaskGuidedSR(network_of("compact"), runtime="own")
    (chain,) = model._runner.planner.chains
    chain.in_blocks = chain
    assert "of compact, a layer that a whole image has in blocks" in model._runner.plan(83, 150).in_parts()


@pytest.mark.parametrize("kind", ["grey", "alpha", "16 bits"])
def test_frames_of_other_kinds_are_made_as_a_whole_unless_they_stay(kind):
    model, rgb = MaskGuidedSR(network_of("compact"), runtime="own"), image_of()
    image = {"grey": rgb[..., 0], "alpha": np.dstack([rgb, rgb[..., :1]]), "16 bits": rgb.astype(np.uint16) * 257}[kind]
    for tolerance in (0, 2):
        frames = Frames(model, tolerance)
        for frame in (image, changed(image, (3, 4, 2, 2)), changed(image, (3, 4, 2, 2))):
            assert np.array_equal(frames.upscale(frame), model.upscale(frame))
        assert (frames.told.same, len(frames.told.whole), frames.told.reason) == (1, 2, "")


def test_equal_numbers_of_another_type_are_another_frame():
    """0 is black in bytes and in 16 bits, and 200 of 255 is not 200 of 65535."""
    model, small = MaskGuidedSR(network_of("compact"), device="cpu", dtype="float32"), image_of(24, 30)
    film = Frames(model)
    film.upscale(small)
    made = film.upscale(small.astype(np.uint16))
    assert made.dtype == np.uint16
    assert np.array_equal(made, model.upscale(small.astype(np.uint16)))
    for wrong in (np.zeros((24, 30, 3), np.float32), np.zeros((24, 30, 3), bool)):
        film.upscale(np.zeros((24, 30, 3), np.uint8))
        with pytest.raises(InputError, match="expected a uint8 or uint16 array"):
            film.upscale(wrong)
    with pytest.raises(InputError, match=r"a frame is an array, .* got list"):
        film.upscale([[0]])


def test_a_frame_may_take_the_memory_of_the_one_before():
    """And what was given out is not written to, neither by the next frame nor by its owner."""
    model, image = MaskGuidedSR(network_of("compact"), runtime="own"), image_of()
    frames, memory = Frames(model), image.copy()
    first = frames.upscale(memory)
    memory[:] = changed(image, (9, 9, 3, 3))
    memory.flags.writeable = False
    assert np.array_equal(frames.upscale(memory), model.upscale(memory))
    assert np.array_equal(first, model.upscale(image))
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1


def test_without_reuse_every_frame_is_made():
    model, image = MaskGuidedSR(network_of("compact"), runtime="own"), image_of(40, 60)
    frames = Frames(model, reuse=False)
    for _ in range(3):
        frames.upscale(image)
    assert (frames.told.work, frames.told.same, str(frames.told)) == (3, 0, "")


def test_with_a_tolerance_noise_is_no_change_and_drift_is():
    model, image = MaskGuidedSR(network_of("compact"), runtime="own"), image_of(30, 50).clip(20, 230)
    noise = np.random.default_rng(0).integers(-2, 3, (3, *image.shape))
    frames = Frames(model, tolerance=4)
    first = frames.upscale(image)
    for grain in noise:
        assert np.array_equal(frames.upscale((image + grain).astype(np.uint8)), first)
    assert frames.told.same == 3
    object_ = changed(image, (20, 30, 1, 1))
    noisy = np.where(object_ == image, image + noise[0], object_).astype(np.uint8)
    assert np.array_equal(frames.upscale(noisy), model.upscale(object_))  # what differs by little is the pixel before
    frames.restart()
    for step in range(1, 8):  # a level a frame: never more than the tolerance from what is seen
        seen = 1 if step <= 5 else 6
        shown = frames.upscale((image + step).astype(np.uint8))
        assert np.array_equal(shown, model.upscale((image + seen).astype(np.uint8))), step


@pytest.mark.parametrize("tolerance", [-1, 2.5, "3", 256])
def test_a_tolerance_that_cannot_be(tolerance):
    with pytest.raises(InputError, match="tolerance is a number of levels"):
        Frames(SimpleNamespace(), tolerance=tolerance)


def test_a_frame_that_fails_half_made_leaves_no_trace(monkeypatch):
    model, image = MaskGuidedSR(network_of("compact"), runtime="own"), image_of()
    frames, frame = Frames(model), changed(image, (3, 3, 2, 2))
    first = frames.upscale(image)
    before, parts = first.copy(), model._runner.plan(83, 150).in_parts()

    def stopped(given, out):
        out.fill_(0)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts.plan, "coarse", stopped)
        with pytest.raises(KeyboardInterrupt):
            frames.upscale(frame)
    assert np.array_equal(first, before)
    assert np.array_equal(frames.upscale(frame), model.upscale(frame))
    frame = changed(frame, (9, 9, 2, 2))
    assert np.array_equal(frames.upscale(frame), model.upscale(frame))
    assert frames.told.parts == 1
