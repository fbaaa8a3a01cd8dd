"""What the tests of layers in pair planes share."""

import torch

from mga_kernels.runtimes.cpu import pairs
from mga_kernels.runtimes.cpu.chains import PairChain
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.pairs import Grid, Planes
from mga_kernels.runtimes.cpu.stages import Stage


def rounded(*shape: int, scale: float = 1.0) -> torch.Tensor:
    """Values that bf16 holds exactly."""
    return (torch.randn(shape) * scale).bfloat16().float()


def planes_of(image: torch.Tensor) -> Planes:
    planes = Planes(*image.shape)
    planes.write(image)
    return planes


def poisoned(channels: int, height: int, width: int) -> Planes:
    planes = Planes(channels, height, width)
    planes.inner().fill_(float("nan"))
    return planes


def convolve(layer: Conv, x: Planes, out: Planes | torch.Tensor, grid: Grid | None = None, crop: bool = False) -> None:
    """A chain of one layer."""
    chain = PairChain([Stage(layer, "x", "out", crop=crop)], ["x", "out"])
    chain(grid or Grid(1, (x.height, x.width)), {"x": x, "out": out})


def assert_border_is_zero(planes: Planes) -> None:
    outside = planes.data.clone()
    outside[:, 1 : 1 + planes.height, pairs.VECTOR : pairs.VECTOR + planes.width] = 0
    assert not outside.any()


def assert_rounded(found: torch.Tensor, exact: torch.Tensor) -> None:
    """Within one rounding to bf16 of sums in float32."""
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-5)
