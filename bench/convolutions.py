"""One 3x3 convolution of C to C channels in float maps against PyTorch, and what a list of some of its tiles costs.

    python bench/convolutions.py [--channels 48 50 64] [--sizes 480x270 960x540] [--rounds 25] [--last]

PyTorch convolves channels-last and keeps its memory (``mga_kernels.system.allocator``), which it does not by itself;
ours has bias and leaky ReLU in it, PyTorch's bias only. Each is checked against float64 first. Variants take turns; the
table has medians, and goes to bench/results/convolutions_KERNELS.md, KERNELS being the instruction set. ``--last``
measures the last convolution of SRResNet instead, 9x9 from 64 channels to 3, plainly and as nine of 3x3; its table goes
to bench/results/convolutions_KERNELS_9x9.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from images import processor
from torch import Tensor

from mga_kernels import __version__, _native, ops
from mga_kernels.alone.layout import GROUP, groups_of
from mga_kernels.ops.convolution.map_layout import empty_map, read, write
from mga_kernels.records import FrameRecord, LayerRecord, MapRecord
from mga_kernels.runtimes.cpu.layers import Conv
from mga_kernels.runtimes.cpu.maps import Map, MapChain
from mga_kernels.runtimes.cpu.pairs import Grid
from mga_kernels.runtimes.cpu.stages import Stage
from mga_kernels.system.allocator import huge_pages, keep_memory
from mga_kernels.system.files import whole_file

SLOPE = 0.1
SHARES = (0.02, 0.1, 0.5)  # of the tiles
WORST = {4: 3.0, 6: 12.0}  # rms error, times PyTorch's


class Layer:
    """A convolution of random weights and an image, as ours and as PyTorch's."""

    def __init__(self, channels: int, width: int, height: int):
        generator = torch.Generator().manual_seed(channels)
        self.size = height, width
        self.channels = channels
        self.weight = torch.randn(channels, channels, 3, 3, generator=generator) * (9 * channels) ** -0.5
        self.bias = torch.randn(channels, generator=generator)
        self.image = torch.randn(channels, height, width, generator=generator)
        self.epilogue = torch.zeros(4, groups_of(channels) * GROUP)
        self.epilogue[0, :channels], self.epilogue[1] = self.bias, SLOPE
        self.maps = [empty_map(channels, height, width, huge_pages) for _ in range(2)]
        write(self.maps[0], self.image)

    @property
    def products(self) -> int:
        return 9 * self.channels**2 * self.size[0] * self.size[1]

    def ours(self, tile: int, share: float | None = None) -> Callable[[], Tensor]:
        packed, (height, width) = ops.pack_map_weight(self.weight, tile), self.size
        lists = []
        if share is not None:
            count = -(-height // tile) * -(-width // tile)
            chosen = torch.randperm(count, generator=torch.Generator().manual_seed(1))[: max(1, round(share * count))]
            lists = [chosen.sort().values.int()]
        record = LayerRecord(0, self.channels, 1, self.channels, 3, tile=tile, tiles=len(lists) - 1)
        given = [MapRecord(), MapRecord()], [], [packed], [self.epilogue], [record], lists, FrameRecord(height, width)

        def run() -> Tensor:
            ops.convolve_maps_(self.maps, *given)
            return self.maps[1]

        return run

    def theirs(self) -> Callable[[], Tensor]:
        image = self.image[None].contiguous(memory_format=torch.channels_last)
        weight = self.weight.contiguous(memory_format=torch.channels_last)
        return lambda: F.conv2d(image, weight, self.bias, padding=1)

    def check(self, tiles: tuple[int, ...]) -> dict[int, float]:
        """The rms error of each tile, times that of PyTorch."""
        exact = F.conv2d(self.image[None].double(), self.weight.double(), self.bias.double(), padding=1)[0]
        theirs = float((self.theirs()()[0] - exact).square().mean().sqrt())
        exact = F.leaky_relu(exact, SLOPE)
        ratios = {}
        for tile in tiles:
            found = read(self.ours(tile)(), *self.size, 0, self.channels)
            # A slope below 1 makes errors smaller, so only what it leaves is compared.
            error = (found - exact)[exact > 0].square().mean().sqrt()
            ratios[tile] = float(error) / theirs
            assert ratios[tile] <= WORST[tile], f"tiles of {tile}: {ratios[tile]:.1f} times the error of PyTorch"
        return ratios


def last_layer(width: int, height: int, rounds: int) -> str:
    """A row of the table of 9x9."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 64, 9, 9, generator=generator) * (81 * 64) ** -0.5
    image, bias = torch.randn(64, height, width, generator=generator), torch.zeros(3)
    chain = MapChain([Stage(Conv(weight, bias, floats=True), "x", "out")], ["x", "out"])
    blocks = chain.in_blocks
    assert blocks is not None
    chain.in_blocks = None  # so that it is computed plainly
    x, out = Map(64, height, width), torch.zeros(3, height, width)
    x.write(image)
    given: dict[str, Map | Tensor] = {"x": x, "out": out}
    corner = image[None, :, :44, :204].double()  # PyTorch unfolds images in float64
    exact = F.conv2d(corner, weight.double(), padding=4)[0, :, : min(40, height), : min(200, width)]
    theirs = image[None].contiguous(memory_format=torch.channels_last)
    kernel = weight.contiguous(memory_format=torch.channels_last)
    calls: dict[str, Callable[[], object]] = {
        "PyTorch": lambda: F.conv2d(theirs, kernel, bias, padding=4),
        "plain": lambda: chain(Grid(1, (height, width)), given),
        "blocks": lambda: blocks(Grid(1, (height, width)), given),
    }
    _, rows, columns = exact.shape

    def error_of(found: Tensor) -> float:
        return float((found[:, :rows, :columns] - exact).square().mean().sqrt())

    errors = {"PyTorch": error_of(F.conv2d(theirs, kernel, bias, padding=4)[0])}
    for name in ("plain", "blocks"):
        calls[name]()
        errors[name] = error_of(out)
        assert errors[name] <= 6 * errors["PyTorch"], f"{name}: {errors[name]:.1e} is too large an error"
    medians = race(calls, rounds)
    speed = " | ".join(f"{81 * 3 * 64 * height * width / seconds / 1e9:.0f}" for seconds in medians.values())
    error = " | ".join(f"{errors[name] / errors['PyTorch']:.1f}" for name in ("plain", "blocks"))
    return f"| {width}x{height} | {speed} | {medians['plain'] / medians['blocks']:.2f} | {error} |"


def race(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians of seconds of calls that take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 2):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if number >= 2:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(channels: int, width: int, height: int, rounds: int) -> tuple[str, str]:
    """A row of each table."""
    layer = Layer(channels, width, height)
    errors = layer.check((4, 6))
    calls: dict[str, Callable[[], object]] = {"theirs": layer.theirs(), "4": layer.ours(4), "6": layer.ours(6)}
    calls |= {f"share {share}": layer.ours(4, share) for share in SHARES}
    medians = race(calls, rounds)
    speed = " | ".join(f"{layer.products / medians[name] / 1e9:.0f}" for name in ("theirs", "4", "6"))
    ratio = " | ".join(f"{medians['theirs'] / medians[name]:.2f}" for name in ("4", "6"))
    error = " | ".join(f"{errors[tile]:.1f}" for tile in (4, 6))
    parts = " | ".join(f"{100 * medians[f'share {share}'] / medians['4']:.1f} %" for share in SHARES)
    row = f"| {channels} | {width}x{height}"
    return f"{row} | {speed} | {ratio} | {error} |", f"{row} | {medians['4'] * 1e3:.1f} ms | {parts} |"


def machine(rounds: int) -> str:
    return (
        f"{processor()}, {torch.get_num_threads()} threads, {_native.map_kernels()[0]} kernels, torch "
        f"{torch.__version__}, mga_kernels {__version__}; medians of {rounds} rounds that took turns."
    )


def page_of_last(rows: list[str], rounds: int) -> str:
    lines = [
        machine(rounds),
        "",
        "A 9x9 convolution from 64 channels to 3. GMAC/s: its products over the time. Errors: rms against float64,",
        "times that of PyTorch.",
        "",
        "| image | PyTorch, GMAC/s | plain | nine of 3x3 | times faster than plain | plain: error | nine of 3x3: |",
        "|--:|--:|--:|--:|--:|--:|--:|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def page(rows: list[tuple[str, str]], rounds: int) -> str:
    lines = [
        machine(rounds),
        "",
        "GMAC/s: products of a plain convolution over the time. Errors: rms against float64, times that of PyTorch.",
        "",
        "| C | image | PyTorch, GMAC/s | tiles of 4 | tiles of 6 | 4: times faster | 6: | 4: error | 6: |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(speed for speed, _ in rows),
        "",
        "Random lists of tiles of 4, as a share of the time of all tiles:",
        "",
        f"| C | image | all | {' | '.join(f'{100 * share:.0f} % of the tiles' for share in SHARES)} |",
        "|--:|--:|--:|" + "--:|" * len(SHARES),
        *(parts for _, parts in rows),
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[48, 50, 64])
    parser.add_argument("--sizes", nargs="+", default=["480x270", "960x540"], help="width x height")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--last", action="store_true", help="SRResNet's last convolution, of 9x9, at these sizes")
    parser.add_argument("-o", "--out", type=Path, help="instead of bench/results/convolutions_KERNELS.md")
    args = parser.parse_args(arguments)
    keep_memory(args)
    sizes = [tuple(map(int, size.split("x"))) for size in args.sizes]
    with torch.no_grad():
        if args.last:
            text = page_of_last([last_layer(*size, args.rounds) for size in sizes], args.rounds)
        else:
            rows = [measure(channels, *size, args.rounds) for channels in args.channels for size in sizes]
            text = page(rows, args.rounds)
    name = f"convolutions_{_native.map_kernels()[0]}{'_9x9' if args.last else ''}.md"
    with whole_file(args.out or Path(__file__).parent / "results" / name) as stream:
        stream.write(text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
