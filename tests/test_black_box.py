"""Networks that are not ours refine rectangles of what one of ours makes: the same as in the whole image's picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from black_boxes import black_box, refining
from test_regions import image_of

from mga_kernels import MaskGuidedSR
from mga_kernels.errors import InputError
from mga_kernels.networks import BlackBoxConfig, WholeNetwork
from mga_kernels.runtimes.pytorch import windows as plans
from mga_kernels.runtimes.pytorch.covering import Axis, covering


def floats(network, image, **how):
    """The picture in float32, before bytes."""
    deep = (np.asarray(image).astype(np.uint16) * 257).copy()
    model = MaskGuidedSR(network, **how)
    return np.asarray(model.upscale(deep)).astype(np.float64) / 65535


def chosen_of(model, image, shape):
    found = model.explain(image)
    cells = np.isin(np.arange(found.mask.size), found.indices).reshape(found.mask.shape)
    side = model.patch_size * model.scale
    return cells.repeat(side, 0).repeat(side, 1)[: shape[0], : shape[1]]


@pytest.mark.parametrize("size", [(83, 150), (64, 96), (5, 3), (8, 61), (17, 18)])
def test_all_cells_are_the_networks_own_picture(size):
    image, network = image_of(*size), black_box(halo=0)
    own = floats(WholeNetwork(refining()).eval(), image)
    for how in ({"fraction": 1.0}, {"mode": "dense"}):
        assert np.abs(floats(network, image, **how) - own).max() <= 1e-5


@pytest.mark.parametrize("settings", [{}, {"side": 6, "smallest": 16, "halo": 36}, {"depth": 0, "halo": 4}])
@pytest.mark.parametrize("size", [(83, 150), (96, 128)])
def test_with_a_halo_of_all_it_sees_cells_are_those_of_the_whole_picture(settings, size):
    network, image = black_box(**settings), image_of(*size)
    whole, made = floats(network, image, mode="dense"), floats(network, image, fraction=0.12)
    coarse = floats(network, image, k=0)
    exact = MaskGuidedSR(network, fraction=0.12, dtype="float32")  # in bf16 bytes may choose other cells than floats
    inside = chosen_of(exact, image, whole.shape)
    assert 0.05 < inside.mean() < 0.3
    assert np.abs(made - whole)[inside].max() <= 3e-5  # of 16 bits a half is 0.8e-5
    assert np.abs(coarse - whole)[inside].max() > 1e-2
    assert np.array_equal(made[~inside], coarse[~inside])
    small = black_box(**settings | {"halo": 0})
    assert np.abs(floats(small, image, fraction=0.12) - whole)[inside].max() > 1e-3, "a halo is needed"


@pytest.mark.parametrize("runtime", ["own", "pytorch", "auto"])
def test_the_plan_is_the_definition(runtime):
    network, image = black_box(), image_of()
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    expected = network(tensor, k=20)[0].permute(1, 2, 0)
    model = MaskGuidedSR(network, runtime=runtime, dtype="float32", k=20)
    found = torch.from_numpy(np.asarray(model.upscale(image)))
    assert (found - 255 * expected).abs().max() <= 0.52


def test_several_at_once_are_what_each_is_alone(monkeypatch):
    image, sizes = image_of(120, 160), []
    run = plans.WindowPlan._run
    monkeypatch.setattr(plans.WindowPlan, "_run", lambda self, images: sizes.append(len(images)) or run(self, images))
    at_once = floats(black_box(halo=4), image, k=12)
    assert max(sizes) > 1
    sizes.clear()
    alone = floats(black_box(halo=4, together=False), image, k=12)
    assert set(sizes) == {1}
    assert np.abs(at_once - alone).max() <= 3e-5
    monkeypatch.setattr(plans, "MOST_VALUES", 6000 * 32 * 32)
    sizes.clear()
    assert np.abs(floats(black_box(), image, k=200) - floats(black_box(), image, mode="dense")).max() < 1
    assert len(sizes) > 5, "no more pixels than that at once"
    every, whole = (floats(black_box(halo=0), image, **how) for how in ({"fraction": 1.0}, {"mode": "dense"}))
    assert np.array_equal(every, whole), "but for all cells, which are run whole"


def test_what_is_run_holds_all_cells_and_starts_at_windows():
    random = np.random.default_rng(3)
    for height, width, cell, unit, halo, smallest in (
        (83, 150, 8, 4, 8, 8),
        (61, 40, 12, 7, 14, 16),
        (200, 96, 8, 8, 16, 16),
        (9, 120, 4, 1, 3, 1),
    ):
        rows, columns = (Axis(length, cell, unit, halo, smallest) for length in (height, width))
        grid = -(-height // cell), -(-width // cell)
        for share in (0.01, 0.1, 0.5, 1.0):
            cells = random.random(grid) < share
            cells[random.integers(grid[0]), random.integers(grid[1])] = True
            found = covering(cells, rows, columns, 1 << 30)
            held = np.zeros_like(cells)
            for rectangle in found:
                top, bottom, left, right = rectangle.cells
                held[top:bottom, left:right] = True
                for (first, last), (start, end), length in (
                    ((top, bottom), rectangle.pixels[:2], height),
                    ((left, right), rectangle.pixels[2:], width),
                ):
                    assert start % unit == 0
                    assert end == length or end % unit == 0
                    assert start == 0 or first * cell - start >= halo
                    assert end == length or end - last * cell >= halo
                    assert end - start >= min(smallest, length)
            assert held[cells].all()
            run = sum(a * b for a, b in (rectangle.size for rectangle in found))
            assert run <= height * width or share < 1
            least = 40 * 40
            limited = covering(cells, rows, columns, least)
            assert all(a * b <= least or np.prod(np.diff(r.cells)[[0, 2]]) == 1 for r in limited for a, b in [r.size])


def test_two_spots_far_apart_are_two_rectangles_and_near_ones_one():
    axis = Axis(400, 8, 8, 16, 8)
    cells = np.zeros((50, 50), bool)
    cells[2, 2] = cells[2, 3] = cells[47, 45] = True
    assert [rectangle.cells for rectangle in covering(cells, axis, axis, 1 << 30)] == [(2, 3, 2, 4), (47, 48, 45, 46)]
    assert covering(np.zeros((50, 50), bool), axis, axis, 1 << 30) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"halo": 6}, "multiple of 4"),
        ({"share": 2}, "share"),
        ({"smallest": 0}, "smallest"),
        ({"together": 1}, "together"),
    ],
)
def test_what_cannot_be_is_an_error(settings, message):
    with pytest.raises(InputError, match=message):
        black_box(**settings)


def test_a_configuration_alone_makes_no_network():
    config = BlackBoxConfig.from_json(black_box().config.to_json())
    assert config == black_box().config
    with pytest.raises(InputError, match="Windowed is not one of our networks"):
        WholeNetwork(config.refine)


def test_tiles_that_are_asked_for_and_flat_images():
    network, image = black_box(quality="high", qualities={"high": 0.05}), image_of(100, 140)
    with pytest.warns(UserWarning, match="tile=48"):
        made = np.asarray(MaskGuidedSR(network, tile=48).upscale(image)).astype(int)
    assert np.abs(made - np.asarray(MaskGuidedSR(network).upscale(image))).mean() < 2
    assert len(MaskGuidedSR(network, k=0).explain(image).indices) == 0
