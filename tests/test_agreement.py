"""Where the Refine-Net over the whole feature (-D) and over all patches (-A, or -M with every cell) are one function.

A patch is p + 2h pixels wide, h = 1, and is refined by itself. Let F be the coarse feature, R the Refine-Net and
"local" an R whose output depends on a neighbourhood only, in the same way everywhere. Then:

1. One cell that is the whole image: the patch is F with a border of zeros, which is what -D gives to R. The two agree
   for every network, statistics and all.
2. Several cells, R local: the layers before the unpadded one see zeros beyond the patch where -D sees the neighbouring
   cells. The two differ within the reach of those layers and of the upsampler from a border between cells, and agree
   elsewhere, also up to the border of the image, beyond which both see zeros. At p = 4 no pixel of a cell in the middle
   is out of reach, so that there -A and -D are never the same.
3. A halo as wide as R reaches, R local: a patch holds everything that its pixels depend on. The two agree for a cell
   that is as far from the border of the image; at the border they differ, because convolutions make biases out of the
   zeros of a halo, but not out of their own padding.
4. R not local: statistics over a patch (instance normalisation, attention by pooled channels) or attention that is
   resized to the patch (ESA) are others than those over the image. The two differ everywhere, however wide the halo.

All in float64: equal means up to rounding, and different means by far more.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from network_zoo import NAMES, one_thread, photographs, random_model
from torch import Tensor

from mga_kernels.networks import MaskGuidedNetwork, network_names
from mga_kernels.ops import gather_patches

EQUAL, DIFFERENT = 1e-11, 1e-9  # for images in [0, 1]
P = 8
NO_NORM = {"base": {"norm": "none"}, "refine": {"norm": "none"}}
SEES_HALO = {"refine": {"sees_halo": True}}
LOCAL = [("fsrcnn", {}), ("fsrcnn", SEES_HALO), ("pan", {}), ("srresnet", NO_NORM)]
NOT_LOCAL = [("rfdn", {}), ("srresnet", {}), ("rcan", {}), ("imdn", {})]

pytestmark = pytest.mark.usefixtures("free_choice")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


def double_model(network: str, scale: int, patch_size: int = P, **settings) -> MaskGuidedNetwork:
    return random_model(network, scale, torch.float64, patch_size=patch_size, **settings)


def feature_of_photograph(model: MaskGuidedNetwork, height: int, width: int) -> Tensor:
    """The coarse feature (1, C, height, width) of a photograph, cut out where the Base-Net needs a larger one."""
    smallest = model.config.definition.minimum_size
    _, feature = model.coarse(photographs(max(height, smallest), max(width, smallest))[:1].double())
    return feature[:, :, :height, :width].contiguous()


def all_patches(model: MaskGuidedNetwork, feature: Tensor) -> Tensor:
    """-A from the coarse feature alone, (1, 3, sH, sW), put together without ``paste_patches_``."""
    patches = model.refined(feature, model.every_cell(feature))
    side = model.config.scale * model.config.patch_size
    rows, columns = feature.shape[2] // model.config.patch_size, feature.shape[3] // model.config.patch_size
    grid = patches.reshape(rows, columns, 3, side, side).permute(2, 0, 3, 1, 4)
    return grid.reshape(1, 3, rows * side, columns * side)


def difference(a: Tensor, b: Tensor) -> np.ndarray:
    """Largest difference of the colours at each pixel (H, W); NaN counts as a difference without limit."""
    return (a - b).abs().nan_to_num(math.inf).amax(dim=(0, 1)).numpy()


def test_every_network_is_said_to_be_local_or_not():
    assert {name for name, _ in LOCAL + NOT_LOCAL} >= {*network_names()}


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("network", NAMES)
def test_one_cell_that_is_the_whole_image(network, scale):
    """Statement 1. A feature is used where the Base-Net takes no image as small as a cell."""
    model = double_model(network, scale)
    if model.config.definition.minimum_size <= P:
        for height, width in ((P, P), (5, 7)):  # the second is extended to the cell by reflection and cropped
            image = photographs(height, width)[:1].double()
            decomposed = model(image, variant="decomposed")
            assert ((decomposed > 0) & (decomposed < 1)).double().mean() > 0.3, "clamping must not make it equal"
            assert difference(model(image, variant="all"), decomposed).max() <= EQUAL
            assert difference(model(image, k=1), decomposed).max() <= EQUAL
            assert difference(model(image, variant="base"), decomposed).max() > 1e-3
    feature = feature_of_photograph(model, P, P)
    assert difference(all_patches(model, feature), model.decomposed(feature)).max() <= EQUAL


@pytest.mark.parametrize("network", NAMES)
def test_masked_is_all_in_the_selected_cells_and_base_elsewhere(network):
    """So whatever is said of -A and -D holds for -M cell by cell, and for -M with every cell as a whole."""
    model = double_model(network, 2, 4)
    image = photographs(16, 20)[:1].double()
    everything, base = model(image, variant="all"), model(image, variant="base")
    assert difference(model(image, k=20), everything).max() <= EQUAL
    _, feature = model.coarse(image)
    _, indices = model.select(feature, 6)
    selected = torch.zeros(20, dtype=torch.bool).index_fill(0, indices[0].long(), True).reshape(1, 1, 4, 5)
    selected = F.interpolate(selected.double(), scale_factor=8) > 0
    assert difference(model(image, k=6), torch.where(selected, everything, base)).max() <= EQUAL
    assert difference(everything, base).max() > 1e-3


def _deconvolution_reads(scale: int, y: int) -> range:
    """LR rows that reach HR row y through FSRCNN's 9x9 transposed convolution with padding 4: |scale * i - y| <= 4."""
    return range(math.ceil((y - 4) / scale), (y + 4) // scale + 1)


def _sees_a_border_between_cells(scale: int, padded_layers: int, cells: int, p: int) -> np.ndarray:
    """For each HR row of a column of cells (bool): whether refining its cell alone gives another value than -D.

    Every padded 3x3 convolution spoils one more row inwards from the ends of the p + 2 rows of a patch; the unpadded
    one takes off the halo and reaches one row further. So row i of the cell is spoilt for i < ``padded_layers`` and
    likewise at its other end. Rows of the neighbour, i < 0 or i >= p, are missing altogether. At an end that is the
    border of the image there is nothing to spoil.
    """
    spoilt = []
    for cell in range(cells):
        low = padded_layers if cell > 0 else -math.inf
        high = p - 1 - padded_layers if cell < cells - 1 else math.inf
        spoilt += [any(not low <= i <= high for i in _deconvolution_reads(scale, y)) for y in range(scale * p)]
    return np.array(spoilt)


@pytest.mark.parametrize("patch_size", [4, 8])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("blocks", [1, 2])
def test_fsrcnn_differs_within_its_reach_of_the_borders_between_cells_and_nowhere_else(scale, patch_size, blocks):
    """Statement 2, pixel by pixel, for the one network whose reach can be written down in a line."""
    model = double_model("fsrcnn", scale, patch_size, split=(1, blocks))
    feature = feature_of_photograph(model, 3 * patch_size, 3 * patch_size)
    found = difference(all_patches(model, feature), model.decomposed(feature))
    line = _sees_a_border_between_cells(scale, blocks + 1, 3, patch_size)  # the blocks and conv1 are padded
    expected = line[:, None] | line[None, :]
    assert (found[~expected] <= EQUAL).all()
    assert (found[expected] > DIFFERENT).all(), "the reach that was computed is larger than the real one"
    middle = expected[scale * patch_size : -scale * patch_size, scale * patch_size : -scale * patch_size]
    assert middle.all() == (patch_size == 4 or (blocks == 2 and scale < 4))
    assert expected[0, 0] <= (patch_size == 4), "a corner of the image is far from other cells where these are large"


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_fsrcnn_that_sees_the_halo_is_nearer_to_the_whole_image(scale):
    """The same weights: most of the difference to -D was what the transposed convolution did not see."""
    without, model = (double_model("fsrcnn", scale, **settings) for settings in ({}, SEES_HALO))
    model.load_state_dict(without.state_dict())
    feature = feature_of_photograph(model, 5 * P, 5 * P)
    found = [difference(all_patches(m, feature), m.decomposed(feature)).mean() for m in (model, without)]
    assert found[0] < 0.5 * found[1]


def refined_with_halo(model: MaskGuidedNetwork, feature: Tensor, cell: int, halo: int) -> Tensor:
    """One cell (1, 3, sp, sp), refined as a patch with a wider halo and cut out of the result."""
    p, s = model.config.patch_size, model.config.scale
    patch = gather_patches(feature, torch.tensor([[cell]], dtype=torch.int32), p, halo)
    border = s * (halo - model.halo)
    return model.refine(patch)[..., border : border + s * p, border : border + s * p] / model.config.value_range


def cell_of(model: MaskGuidedNetwork, image: Tensor, row: int, column: int) -> Tensor:
    side = model.config.scale * model.config.patch_size
    return image[..., row * side : (row + 1) * side, column * side : (column + 1) * side]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("network", "settings"), LOCAL)
def test_a_wide_halo_makes_a_local_network_agree_away_from_the_border(network, settings, scale):
    """Statement 3: the middle one of 5 x 5 cells, and a corner, with a halo of 12 pixels, wider than any reaches."""
    model = double_model(network, scale, **settings)
    feature = feature_of_photograph(model, 5 * P, 5 * P)
    whole = model.decomposed(feature)
    middle = cell_of(model, whole, 2, 2)
    assert difference(refined_with_halo(model, feature, 12, 12), middle).max() <= EQUAL
    assert difference(refined_with_halo(model, feature, 12, model.halo), middle).max() > DIFFERENT
    assert difference(refined_with_halo(model, feature, 0, 12), cell_of(model, whole, 0, 0)).max() > DIFFERENT


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_halo_must_be_as_wide_as_fsrcnn_reaches(scale):
    """Two padded layers, the unpadded one, and the rows that the transposed convolution reads beyond the cell."""
    model = double_model("fsrcnn", scale)
    feature = feature_of_photograph(model, 5 * P, 5 * P)
    middle = cell_of(model, model.decomposed(feature), 2, 2)
    enough = 2 + 1 + _deconvolution_reads(scale, scale * P - 1)[-1] - (P - 1)
    assert difference(refined_with_halo(model, feature, 12, enough), middle).max() <= EQUAL
    assert difference(refined_with_halo(model, feature, 12, enough - 1), middle).max() > DIFFERENT


@pytest.mark.parametrize(("network", "settings"), NOT_LOCAL)
def test_statistics_of_a_patch_are_not_those_of_the_image(network, settings):
    """Statement 4: no halo and no distance from a border makes it agree; nearly no pixel is the same."""
    model = double_model(network, 2, **settings)
    feature = feature_of_photograph(model, 5 * P, 5 * P)
    whole = model.decomposed(feature)
    middle = cell_of(model, whole, 2, 2)
    for halo in (model.halo, 12):
        found = difference(refined_with_halo(model, feature, 12, halo), middle)
        assert (found > DIFFERENT).mean() > 0.99
        assert found.max() > 1e-7, "far more than rounding"
    assert (difference(all_patches(model, feature), whole) > DIFFERENT).mean() > 0.99
