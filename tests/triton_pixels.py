"""The kernel of ``convolve_pixels_`` against its definition. test_triton_kernels.py runs this file."""

import pytest
import torch
from pixel_layers import LAYERS, arguments
from torch import nn
from triton_kernels import DEVICE, FLOATS, INTERPRETING
from triton_kernels import poisoned_outputs as poisoned_outputs

from mga_kernels import ops
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.pairs import Grid
from mga_kernels.runtimes.cpu.stages import Stage
from mga_kernels.runtimes.cuda.pixels import PixelChain, PixelMap, Pixels
from mga_kernels.runtimes.cuda.regions import PixelRegions

OPERATOR = ops.operators()["convolve_pixels_"]
HALF = [dtype for dtype in FLOATS if dtype != torch.float32]


def on(device, given):
    return [a.to(device, copy=True) if isinstance(a, torch.Tensor) else a for a in given]


def both(given):
    """What the kernel and the definition make of copies of the arguments: out, sums, finite."""
    found = []
    for name in ("triton", "reference"):
        mine = on(DEVICE, given)
        if given[0].ndim == 3 and given[0].stride(2) != 1:  # planes
            mine[0] = given[0].permute(2, 0, 1).to(DEVICE, copy=True).permute(1, 2, 0)
        assert OPERATOR.backends[name].can_run(*mine) is None
        OPERATOR.backends[name].run(*mine)
        found.append([mine[0], mine[7], mine[8]])  # out, sums, finite
    return found


def assert_alike(given):
    (out, sums, finite), (wanted, wanted_sums, wanted_finite) = both(given)
    assert bool(finite) == bool(wanted_finite)
    if out.dtype == torch.uint8:
        apart = (out.int() - wanted.int()).abs()  # float32 sums may lie on the other side of a half
        assert int(apart.max()) <= 1
        assert float(apart.float().mean()) < 0.01
    else:
        tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[out.dtype]
        torch.testing.assert_close(out, wanted, rtol=tolerance, atol=tolerance)
    if sums is not None:
        torch.testing.assert_close(sums, wanted_sums, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype, generator):
    assert_alike(arguments(name, dtype, generator))


def test_float32(generator):
    assert_alike(arguments("two added", torch.float32, generator))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["two added", "bytes x4 of patches"])
def test_what_is_not_finite_is_told(name, bad, generator):
    """Where it is written; of pictures not between them."""
    given = arguments(name, HALF[0], generator)
    given[1][4, 7, 3] = bad  # inside the last patch
    (*_, finite), (*_, wanted) = both(given)
    assert not bool(finite)
    assert not bool(wanted)
    given = arguments(name, HALF[0], generator)
    given[1][2, 3, 3] = bad  # between patches
    (*_, finite), (*_, wanted) = both(given)
    assert bool(finite) == bool(wanted) == (name != "two added")


@pytest.mark.parametrize("dtype", FLOATS[:1] if INTERPRETING else FLOATS)
def test_a_chain_in_regions_is_the_whole_chain(dtype):
    """Of three layers, the last one enlarging: all cells, and some whose halo holds all that is seen, in floats."""
    torch.manual_seed(4)
    height, width, cells = 24, 40, torch.zeros(3, 5, dtype=torch.bool)
    cells[1, 1] = cells[2, 4] = True
    with torch.device(DEVICE), torch.no_grad():
        layers = [nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 48, 1)]
        convs = [Conv.of(layers[0], 0.1), Conv.of(layers[1]), Conv.of(layers[2], 0.1, shuffle=2, floats=True)]
        stages = [Stage(convs[0], "image", "a"), Stage(convs[1], "a", "b", "a"), Stage(convs[2], "b", "out")]
        storage, grid = Pixels(dtype), Grid(1, (height, width))
        chain, image = PixelChain(storage, stages, ["image", "out"]), PixelMap(16, height, width, dtype)
        image.write(torch.randn(16, height, width))

        def run(regions, value=0.0):
            out = torch.full((12, 2 * height, 2 * width), value)
            grid.regions = regions
            chain(grid, {"image": image, "out": out})
            return out

        whole, regions = run(None), PixelRegions(8, 4, run)
        for chosen in (torch.ones_like(cells), cells):
            for held in grid.rooms.maps.values():
                held.fill_(torch.nan)
            regions.choose(chosen.to(DEVICE), height, width)
            found = run(regions, 9.0)
            inside = chosen.repeat_interleave(16, 0).repeat_interleave(16, 1).to(DEVICE)
            torch.testing.assert_close(found[:, inside], whole[:, inside], rtol=0, atol=1e-5)
    assert (found[:, :16, 64:] == 9).all(), "far from both"
