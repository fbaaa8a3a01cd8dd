"""The pictures of the mask: which pixels are coloured, and what the strip shows where."""

import numpy as np
import pytest
from PIL import Image

from mga.drawing.overlay import draw_overlay, draw_strip, most_refined, ramp
from mga_kernels.errors import InputError


def test_only_refined_cells_are_coloured():
    image = np.full((30, 45, 3), 120, np.uint8)  # the grid of 4 x 6 cells of 8 reaches over both edges
    mask = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    indices = np.array([1, 8, 23], np.int32)
    picture = np.asarray(draw_overlay(image, mask, indices, 8))[:30]
    coloured = np.zeros((32, 48), bool)
    for index in indices:
        row, column = divmod(int(index), 6)
        coloured[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = True
    is_grey = picture.max(2) - picture.min(2) <= 1
    np.testing.assert_array_equal(~is_grey, coloured[:30, :45])
    assert picture[~coloured[:30, :45]].max() < 120
    inner_weak, inner_strong = picture[4, 12].astype(float), picture[28, 43].astype(float)
    np.testing.assert_allclose(inner_weak, 120 + 0.45 * (ramp(np.array(0.0)) - 120), atol=1)
    np.testing.assert_allclose(inner_strong, 120 + 0.45 * (ramp(np.array(1.0)) - 120), atol=1)
    np.testing.assert_allclose(picture[0, 12], ramp(np.array(0.0)), atol=1)  # the border of the first cell


def test_nothing_refined_and_all_refined():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    mask = np.full((4, 4), 0.5, np.float32)
    none = np.asarray(draw_overlay(image, mask, np.zeros(0, np.int32), 4))[:16]
    assert (none.max(2) - none.min(2) <= 1).all()
    every = np.asarray(draw_overlay(image, mask, np.arange(16, dtype=np.int32), 4))[:16]
    assert (every.max(2) - every.min(2) > 1).mean() > 0.9
    with pytest.raises(InputError, match="do not cover"):
        draw_overlay(image, mask[:3], np.arange(3), 4)


def test_most_refined_places_are_found_and_do_not_overlap():
    mask = np.full((12, 12), 0.1, np.float32)
    mask[7:9, 2:4] = 0.9
    mask[0:2, 9:11] = 0.5
    indices = np.flatnonzero(mask.ravel() > 0.2)
    assert most_refined(mask, indices, 2, 5) == [(7, 2), (0, 9)]
    assert most_refined(mask, indices, 13, 5) == []
    assert most_refined(mask, np.zeros(0, int), 2, 5) == []


def test_strip_shows_the_same_place_of_all_images():
    height, width, cell = 96, 160, 8
    lr = np.zeros((height // 4, width // 4, 3), np.uint8)
    coarse, final = (np.full((height, width, 3), value, np.uint8) for value in (80, 160))
    y, x = 40, 64
    coarse[y : y + 8, x : x + 8] = (200, 0, 0)
    final[y : y + 8, x : x + 8] = (0, 200, 0)
    lr[y // 4 : y // 4 + 2, x // 4 : x // 4 + 2] = (0, 0, 200)
    mask = np.zeros((12, 20), np.float32)
    mask[5, 8] = 1
    strip = np.asarray(draw_strip(lr, coarse, final, mask, np.array([5 * 20 + 8]), cell, count=3, side=200))
    tile = 200
    top = strip.shape[0] - 12 - tile
    centres = [strip[top + tile // 2, 12 + i * (tile + 12) + tile // 2] for i in range(3)]
    assert centres[0][2] > 150
    assert centres[0][0] < 30
    np.testing.assert_array_equal(centres[1:], [(200, 0, 0), (0, 200, 0)])


def test_strip_of_an_image_without_refined_cells_or_smaller_than_a_crop():
    image = np.full((8, 8, 3), 77, np.uint8)
    small = draw_strip(image[:2, :2], image, image, np.ones((1, 1)), np.zeros(0, int), 16)
    assert isinstance(small, Image.Image)
    assert (np.asarray(small) == 77).all(-1).sum() > 1000  # the map is there
