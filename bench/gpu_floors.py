"""What each network asks of a GPU for an image at 4K, counted without one: ``python bench/gpu_floors.py``.

The road of every plan for GPUs is walked with tensors that have shapes and no values, and its operators are counted:
launches, operations, bytes. From them bench/results/gpu_floors.json and .md have, for rates of one GPU, the time below
which no way of running the network can go, that below which these launches cannot go, and an estimate. **Nothing in
them is measured**: the rates are those of data sheets and reports, and the estimate's shares are guesses.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from discs import cells_in_discs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from mga_kernels import ops
from mga_kernels.checkpoints.native import load_native
from mga_kernels.networks import (
    ClassConfig,
    ClassNetwork,
    MaskGuidedNetwork,
    ModelConfig,
    RegionConfig,
    RegionNetwork,
    SRNetwork,
    WholeConfig,
    WholeNetwork,
)
from mga_kernels.ops.convolve_pixels.layout import tiles_of
from mga_kernels.runtimes.cuda.graph import CudaGraphPlanner
from mga_kernels.runtimes.cuda.own import OwnClasses, OwnPlanner, OwnRegions
from mga_kernels.runtimes.cuda.regions import PixelRegions

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"
META = torch.device("meta")
HEIGHT, WIDTH, SCALE = 540, 960, 4
DIVIDED = ("fsrcnn", "pan", "rfdn", "srresnet", "rcan", "imdn")
# Of whole networks the blocks of what is published.
WHOLE = {"span": 6, "compact": 16, "edsr": 16, "imdn": 8, "simplified_imdn": 8, "msrresnet": 16, "rrdbnet": 23}
REFINING = ("span", "compact", "msrresnet")  # regions, of what a small network makes:
BASE = WholeConfig("compact", SCALE, 4, {"channels": 32})
CELL, HALO, SHARES = 12, 8, (0.1, 0.3, 1.0)  # as `mga convert` has them, and shares of the cells that are refined
SHIPPED = "span-x4-regions"  # the model for videos and for whatever asks for an amount of cells, with its own settings
WIDTHS = (16, 36, 56)  # of the branches of the paper's FSRCNN-C, of which each has a third of the sub-images

BANDWIDTH, RATE = 3.0e12, 790e12  # of an H100 SXM: bytes/s read plus written by a copy, fp16 operations/s of matrices
# Of the estimate: the share of the bandwidth that a simple kernel reaches; the share of the rate that a convolution
# does, where all channels are multiples of 8 and where they are not; seconds between two launches of a graph.
COPY_SHARE, EVEN_SHARE, ODD_SHARE, BETWEEN = 0.8, 0.6, 0.25, 1.5e-6

NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach"}
ONLY_WRITES = {"fill_", "zero_", "copy_"}  # what they change is not read
MORE_LAUNCHES = {"filter_and_select": 1}  # its workspace is cleared by a node of its own


@dataclass
class Launches:
    """Of one operator: kernels, operations (a multiplication and an addition are two), bytes, and whether its channels
    are multiples of 8."""

    name: str
    kernels: int
    operations: int
    bytes: int
    even: bool = True

    def floor(self, bandwidth: float, rate: float) -> float:
        return max(self.bytes / bandwidth, self.operations / rate)

    def estimate(self, bandwidth: float, rate: float) -> float:
        share = EVEN_SHARE if self.even else ODD_SHARE
        return max(self.bytes / (COPY_SHARE * bandwidth), self.operations / (share * rate)) + self.kernels * BETWEEN


class Counter(TorchDispatchMode):
    """Within it every operator that starts kernels is put on a list.

    ``listed``: of every convolution over a list of tiles, in their order, the shares of the tiles that are computed and
    that are written; of those that it does not have, all.
    """

    def __init__(self, listed: Iterable[tuple[float, float]] = ()) -> None:
        super().__init__()
        self.launches: list[Launches] = []
        self.listed = iter(listed)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._schema.name.split("::")[-1]
        alias = [r.alias_info for r in func._schema.returns]
        view = any(a is not None and not a.is_write for a in alias)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        if view or name in NOTHING or any(made is g for g in given):
            return result
        found = counted(name, func, args, kwargs, given, made, result)
        if name == "convolve_pixels_" and args[6] is not None:
            found = [over_a_list(args, *next(self.listed, (1.0, 1.0)))]
        self.launches += found
        return result


def counted(name: str, func: Any, args: tuple, kwargs: dict, given: list, made: list, result: Any) -> list[Launches]:
    own = OURS.get(name)
    if own is not None:
        return [Launches(name, 1 + MORE_LAUNCHES.get(name, 0), *own(args, made))]
    if name == "convolution":
        image, weight, bias = args[:3]
        operations = flop_registry[torch.ops.aten.convolution](*args, **kwargs, out_val=result)
        even = all(side % 8 == 0 for side in weight.shape[:2])
        found = [Launches(name, 1, operations, image.nbytes + weight.nbytes + result.nbytes, even)]
        # cuDNN's convolution has no bias in PyTorch: it is added in a pass of its own.
        return found + ([] if bias is None else [Launches("bias", 1, 0, 2 * result.nbytes + bias.nbytes)])
    read = sum(t.nbytes for t in (given[1:] if name in ONLY_WRITES else given))
    return [Launches(name, 1, 0, read + sum(t.nbytes for t in made))]


def mask_head(args: tuple, made: list) -> tuple[int, int, bool]:
    feature, weight1, _, weight2 = args[:4]
    pixels = feature.numel() // feature.shape[1]
    operations = 2 * 9 * pixels * weight1.shape[0] * (weight1.shape[1] + weight2.shape[0])
    return operations, size(args) + size(made), feature.shape[1] % 8 == 0


def convolve_pixels(args: tuple, made: list) -> tuple[int, int, bool]:
    """With the channels that it computes, zeros among them."""
    out, x, weight, _, *added = args[:6]
    kernel, _, shuffle = args[12:15]
    pixels = out.numel() // out.shape[-1] // shuffle**2
    operations = 2 * pixels * weight.numel() if kernel else 0
    return operations, size((out, x, weight, added)), True


def over_a_list(args: tuple, computed: float, written: float) -> Launches:
    """``convolve_pixels_`` of tiles; what they read beside them counts for those beside them."""
    out, x, weight, _, *added = args[:6]
    operations, _, even = convolve_pixels(args, [])
    moved = computed * size((x, added)) + written * size(out) + size((weight, args[6]))
    return Launches("convolve_pixels_", 1, round(computed * operations), round(moved), even)


def size(tensors: Any) -> int:
    return sum(t.nbytes for t in tree_leaves(tensors) if isinstance(t, Tensor))


# Operations, bytes and evenness by the name of an operator of ours; one that works on cells touches only those.
OURS: dict[str, Callable[[tuple, list], tuple[int, int, bool]]] = {
    "mask_head": mask_head,
    "convolve_pixels_": convolve_pixels,
    "dynamic_filter": lambda args, made: (0, size(args) + size(made), True),
    "select_patches": lambda args, made: (0, size(args) + size(made), True),
    "filter_and_select": lambda args, made: (0, size(args) + size(made), True),
    "gather_patches": lambda args, made: (0, 2 * size(made) + size(args[1]), True),
    "paste_patches_": lambda args, made: (0, 2 * size(args[1]) + size(args[2]), True),
    "image_to_input": lambda args, made: (0, size(args) + size(made), True),
    "output_to_image": lambda args, made: (0, size(args) + size(made), True),
    "high_pass": lambda args, made: (0, size(args) + size(made), True),
}


@contextmanager
def one_launch_each() -> Iterator[None]:
    """Operators of ours run as one operator of the native library, which knows the shapes of its results."""
    chosen = ops.registry.Operator.choose

    def choose(self: Any, *arguments: Any) -> Any:
        if self.name not in OURS:
            return chosen(self, *arguments)
        return next(self.backends[name] for name in ("cuda", "cpu", "triton") if name in self.backends)

    ops.registry.Operator.choose = choose  # type: ignore[method-assign]
    try:
        yield
    finally:
        ops.registry.Operator.choose = chosen  # type: ignore[method-assign]


def walk(planner: Any, dense: bool, k: int, height: int, width: int) -> list[Launches]:
    plan = planner.plan(height, width, k)
    with torch.no_grad(), one_launch_each():
        plan._run_all(dense, k)  # what is made once is made here
        with Counter() as counter:
            plan._run_all(dense, k)
    return counter.launches


def own(network: SRNetwork) -> OwnPlanner:
    """In our own convolutions; RuntimeError where it has none."""
    planner = OwnPlanner.of(network.eval().requires_grad_(False), META)
    if isinstance(planner, str):
        raise RuntimeError(planner)
    return planner


def refining(name: str, base: WholeConfig = BASE, mean: bool = False) -> OwnPlanner:
    """Of a network that refines regions of what another makes, or with it to the mean of both; or the shipped one."""
    if name == SHIPPED:
        return own(load_native(name))
    return own(RegionNetwork(RegionConfig(base, WholeConfig(name, SCALE, WHOLE[name]), CELL, HALO, mean=mean)))


def by_classes() -> OwnPlanner:
    """Of the paper's FSRCNN-C."""
    branches = tuple(WholeConfig("fsrcnn", SCALE, 4, {"expanded": expanded}) for expanded in WIDTHS)
    return own(ClassNetwork(ClassConfig(branches)))


def walk_regions(planner: OwnPlanner, share: float, height: int, width: int) -> list[Launches]:
    """Of a share of the cells, in discs; how many tiles that are is counted here, with values."""
    cell = planner.weights.config.patch_size
    rows, columns = (-(-side // cell) for side in (height, width))
    plan = cast(OwnRegions, planner.plan(height, width, rows * columns))
    with torch.no_grad(), one_launch_each():
        plan._run_all(False, rows * columns)  # what is made once is made here
        regions = cast(PixelRegions, plan.inner.regions)
        listed = list(shares_of(regions, cells_in_discs(rows, columns, share), height, width))
        with Counter(listed) as counter:
            plan._run_all(False, rows * columns)
    return counter.launches


def shares_of(regions: PixelRegions, cells: Tensor, height: int, width: int) -> Iterator[tuple[float, float]]:
    """Of the tiles of each layer, those that are computed and those that are written."""
    counted = copy.copy(regions)
    counted.choose(cells, height, width)
    for around in (each for layers in regions.around for each in layers):
        tiles, length = counted.lists[around]
        entries = tiles[: int(length)]
        yield int((entries >= 0).sum()) / len(tiles), len(entries) / len(tiles)


def walk_classes(height: int, width: int) -> list[Launches]:
    """Of classes that have as many sub-images each."""
    plan = cast(OwnClasses, by_classes().plan(height, width, 0))
    with torch.no_grad(), one_launch_each():
        plan._run_all(False, 0)
        places, chains = plan.inner.places, plan.inner.weights.chains
        share = len(places.tiles[1][1]) / len(chains) / math.prod(tiles_of(*places.raster))
        with Counter((share, share) for chain in chains for _ in chain.stages) as counter:
            plan._run_all(False, 0)
    return counter.launches


def roads(height: int, width: int) -> Iterator[tuple[str, str, list[Launches]]]:
    """Network, way of running it, launches from the bytes of an image to those of its picture."""
    for name in DIVIDED:
        network = MaskGuidedNetwork(ModelConfig(name, SCALE)).eval().requires_grad_(False)
        k = network.config.k
        for planner, how in ((CudaGraphPlanner(network, META), ""), (own(network), ", own convolutions")):
            yield name, f"-M{how}", walk(planner, False, k, height, width)
            yield name, f"-D{how}", walk(planner, True, 0, height, width)
    for name, blocks in WHOLE.items():
        whole = WholeNetwork(WholeConfig(name, SCALE, blocks)).eval().requires_grad_(False)
        yield name, "whole", walk(CudaGraphPlanner(whole, META), False, 0, height, width)
        yield name, "whole, own convolutions", walk(own(whole), False, 0, height, width)
    for name in (SHIPPED, *REFINING):
        planner = refining(name)
        for share in SHARES:
            yield name, f"regions of {share:.0%}, own convolutions", walk_regions(planner, share, height, width)
    averaging = refining("span", cast(WholeConfig, load_native("rfdn-x4").config), mean=True)
    yield "span", "mean with rfdn in regions of 30%, own convolutions", walk_regions(averaging, 0.3, height, width)
    yield "fsrcnn", "by classes, own convolutions", walk_classes(height, width)


def row(launches: list[Launches], bandwidth: float, rate: float) -> dict[str, Any]:
    operations, moved = (sum(getattr(each, name) for each in launches) for name in ("operations", "bytes"))
    convolutions = [each for each in launches if each.operations]
    return {
        "launches": sum(each.kernels for each in launches),
        "convolutions": len(convolutions),
        "with odd channels": sum(not each.even for each in convolutions),
        "GFLOP": round(operations / 1e9, 1),
        "GB": round(moved / 1e9, 3),
        "floor of the operations, ms": round(1e3 * operations / rate, 3),
        "floor of the launches, ms": round(1e3 * sum(each.floor(bandwidth, rate) for each in launches), 2),
        "estimate, ms": round(1e3 * sum(each.estimate(bandwidth, rate) for each in launches), 2),
    }


def table(record: dict[str, Any]) -> str:
    columns = list(record["rows"][0]["counted"])
    width, height = record["image"]
    lines = [
        "# Floors on a GPU, counted without one",
        "",
        f"By `python bench/gpu_floors.py`: one image of {width}x{height} at x{SCALE} in fp16 with K = 1000,",
        "from bytes to bytes, as the plans for GPUs run it in one CUDA graph, nothing compiled: modules of PyTorch",
        "and our operators, or convolutions of our own, whose zeros count that fill channels up to a multiple of 16.",
        f"Of regions the Base-Net is Compact of {BASE.blocks} blocks and {BASE.settings['channels']} channels; refined",
        f"are cells of {CELL} pixels in three discs, with a halo of {HALO}, and launches include the lists of tiles.",
        f"The model {SHIPPED} has its own Base-Net and halo. Of classes each branch has a third of the sub-images.",
        "",
        "**Nothing here is measured.** Launches, operations and bytes are counted; times are arithmetic with the rates",
        f"of an H100 SXM ({record['bandwidth'] / 1e12:g} TB/s, {record['rate'] / 1e12:g} TFLOP/s). The floor of the",
        "operations is that of any way of running the network; that of the launches has each at its own floor, of",
        f"bytes or operations. The estimate gives simple kernels {COPY_SHARE:.0%} of the bandwidth, convolutions",
        f"{EVEN_SHARE:.0%} of the rate, or {ODD_SHARE:.0%} where channels are no multiples of 8, and each launch",
        f"{BETWEEN * 1e6:g} us: guesses, until `bench/gpu.py` has run.",
        "",
        "| network | run as | " + " | ".join(columns) + " |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for each in record["rows"]:
        cells = (f"{each['counted'][column]:,}" for column in columns)
        lines.append(f"| {each['network']} | {each['road']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    from mga.files.records import to_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bandwidth", type=float, default=BANDWIDTH, help="bytes a second, read plus written")
    parser.add_argument("--rate", type=float, default=RATE, help="operations a second in fp16")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the two files")
    options = parser.parse_args(arguments)
    rows = [
        {"network": network, "road": road, "counted": row(launches, options.bandwidth, options.rate)}
        for network, road, launches in roads(HEIGHT, WIDTH)
    ]
    record = {"image": [WIDTH, HEIGHT], "bandwidth": options.bandwidth, "rate": options.rate, "rows": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu_floors.json").write_text(to_json(record))
    (options.out / "gpu_floors.md").write_text(table(record))
    print(table(record))
    return 0


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "python")]
    sys.exit(main())
