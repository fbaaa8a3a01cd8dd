"""What refining regions costs by how much there is of them: ``python bench/region_cost.py NETWORK [--repeats N]``.

NETWORK is a published file or the name of a shipped model that can refine regions; weights of the Base-Net do not
matter here. Cells are chosen in discs, for shares of the image; printed are the share of multiplications that the lists
of tiles leave (cells with their halos, layer by layer), and the seconds of refining as a part of those of the whole
network, interleaved, medians. Their ratio is 1 where a list costs no more than its tiles do.
"""

from __future__ import annotations

import argparse
import math
import statistics
from typing import cast

import numpy as np
import torch
from discs import cells_in_discs
from regions import seconds_of

from mga.conversion.distilling import CELL, base_config
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.networks import RegionConfig, RegionNetwork
from mga_kernels.runtimes.cpu.layers import Conv, Layer
from mga_kernels.runtimes.cpu.maps import Maps
from mga_kernels.runtimes.cpu.region_plan import RegionPlan, RegionWeights
from mga_kernels.runtimes.cpu.regions import Regions

SIZE = 540, 960
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


def share_of_products(regions: Regions) -> float:
    """Of the multiplications over all tiles, those of the tiles that the chosen cells need."""
    done = of_all = 0.0
    for (rows, _), extents in zip(regions.calls, regions.extents, strict=True):
        for stage, extent in zip(rows.stages, extents, strict=True):
            weight = products(stage.layer) * extent.side**2
            tiles = math.prod(-(-extent.scale * length // extent.side) for length in regions.size)
            done += weight * len(regions.lists[extent][0])
            of_all += weight * tiles
    return done / of_all


def products(layer: Layer) -> int:
    """Multiplications for a pixel, of a plain convolution."""
    return layer.weight.numel() if isinstance(layer, Conv) else layer.channels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network")
    parser.add_argument("--halo", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    teacher = load_checkpoint(asked.network)
    network = RegionNetwork(RegionConfig(base_config(teacher), teacher.config, CELL, asked.halo)).eval()
    network.refine.load_state_dict(teacher.state_dict())
    weights = RegionWeights.of(network.requires_grad_(False), Maps())
    if isinstance(weights, str):
        parser.error(weights)
    rows, columns = (-(-length // CELL) for length in SIZE)
    plan = weights.plan(*SIZE, rows * columns)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    out = plan.buffer()
    plan.coarse(image, out)
    print(f"{asked.network}, {SIZE[1]}x{SIZE[0]}, halo {asked.halo}, {torch.get_num_threads()} threads")
    print(" cells  products   time   time/products")
    for share in SHARES:
        indices = cells_in_discs(rows, columns, share).flatten().nonzero().T.int()
        print(line_of(plan, share, indices, out, asked.repeats), flush=True)


def line_of(plan: RegionPlan, share: float, indices: torch.Tensor, out: torch.Tensor, repeats: int) -> str:
    plan.refine(indices, out)
    plan.decomposed(out)
    runs = [
        (seconds_of(lambda: plan.refine(indices, out)), seconds_of(lambda: plan.decomposed(out)))
        for _ in range(repeats)
    ]
    products = share_of_products(cast(Regions, plan.regions))
    spent = statistics.median(mine / whole for mine, whole in runs)
    return f"{share:6.2f} {products:9.3f} {spent:6.3f} {spent / products:15.2f}"


if __name__ == "__main__":
    main()
