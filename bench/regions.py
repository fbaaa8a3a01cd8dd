"""What refining regions brings, and its rivals: ``python bench/regions.py MODEL [--hr DIR] [--rivals FILE ...]``.

MODEL is what ``mga convert --regions`` wrote. For shares of cells and the qualities of the file: PSNR of luma to the
published network's picture and to the HR images, and seconds as a part of the published network's in our own engine;
beside random cells and those of the largest true error. Rivals are whole networks, for which the same is printed.
Images are HR; LR ones are made of them by bicubic shrinking to 960 x 540.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mga.conversion.curve import large, luma
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.networks import WholeNetwork
from mga_kernels.networks.regions import RegionNetwork
from mga_kernels.ops import high_pass

SIZE = 960, 540
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)


def pairs_of(folder: Path, scale: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Names, LR and HR: the middle of an image in the shape of a screen."""
    found = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in (".jpg", ".png", ".webp"):
            continue
        image = Image.open(file).convert("RGB")
        image = image.rotate(90, expand=True) if image.width < image.height else image
        width, height = (side * scale for side in SIZE)
        factor = max(width / image.width, height / image.height)
        size = max(width, round(image.width * factor)), max(height, round(image.height * factor))
        hr = image.resize(size, Image.Resampling.BICUBIC).crop((0, 0, width, height))
        found.append((file.name, np.asarray(hr.resize(SIZE, Image.Resampling.BICUBIC)), np.asarray(hr)))
    return found


def db(found: np.ndarray, wanted: np.ndarray) -> float:
    return 10 * math.log10(255**2 / max(float(np.square(luma(found) - luma(wanted)).mean()), 1e-6))


def chosen(values: torch.Tensor, share: float) -> torch.Tensor:
    cells = torch.zeros(values.numel(), dtype=torch.bool)
    cells[values.flatten().topk(round(share * values.numel())).indices] = True
    return cells.view_as(values)


def seconds_of(run: Callable[[], object]) -> float:
    """Of the processor."""
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--hr", type=Path, required=True, help="folder of HR photographs")
    parser.add_argument("--rivals", type=Path, nargs="*", default=[], help="files of whole networks")
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    network = load_checkpoint(asked.model)
    if not isinstance(network, RegionNetwork):
        parser.error(f"{asked.model} does not refine regions")
    whole_network = WholeNetwork(network.config.refine)
    whole_network.load_state_dict(network.refine.state_dict())
    rivals = {file.stem: MaskGuidedSR.from_checkpoint(file) for file in asked.rivals}
    whole, base = MaskGuidedSR(whole_network.eval(), runtime="own"), MaskGuidedSR(network.base, runtime="own")
    ways = {f"share {share}": {"fraction": share} for share in SHARES}
    ways |= {name: {"threshold": value} for name, value in network.config.qualities.items()}
    p, scale = network.config.patch_size, network.config.scale
    table: dict[str, list[tuple[float, ...]]] = {}
    for name, lr, hr in pairs_of(asked.hr, scale):
        wanted, coarse = np.asarray(whole.upscale(lr)), np.asarray(base.upscale(lr))
        of_whole = db(wanted, hr)
        makers = {"the whole network": lambda: whole, "Base-Net": lambda: base}
        makers |= {kind: partial(MaskGuidedSR, network, runtime="own", **how) for kind, how in ways.items()}
        makers |= {kind: partial(lambda model: model, model) for kind, model in rivals.items()}
        for kind, make in makers.items():  # one after the other, since each keeps gigabytes
            model = make()
            made = np.asarray(model.upscale(lr))
            runs = [[seconds_of(partial(one.upscale, lr)) for one in (model, whole)] for _ in range(asked.repeats)]
            relative = statistics.median(mine / its for mine, its in runs)
            refined = float("nan")
            if kind in ways:
                refined = len(model.explain(lr).indices) / math.prod(model.grid(*lr.shape[:2]))
            table.setdefault(kind, []).append((refined, relative, db(made, wanted), db(made, hr) - of_whole))
        error = torch.from_numpy(np.square(luma(coarse) - luma(wanted)))[None, None]
        mask = high_pass(torch.from_numpy(coarse)[None], p * scale)[0]
        cells = {
            "largest error": torch.nn.functional.avg_pool2d(error, p * scale, ceil_mode=True)[0, 0],
            "high-pass": mask,
            "random": torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)),
        }
        for kind, values in cells.items():
            for share in SHARES:
                inside = large(chosen(values, share), p * scale, wanted.shape)[..., None]
                made = np.where(inside, wanted, coarse)
                row = share, math.nan, db(made, wanted), db(made, hr) - of_whole
                table.setdefault(f"cells by {kind}, {share}", []).append(row)
        print(f"{name}: the whole network {of_whole:.2f} dB", flush=True)
    print(f"\n{'':32}   share   time   dB to whole   dB to HR less whole's")
    for kind, rows in table.items():
        refined, relative, to_whole, loss = (statistics.fmean(values) for values in zip(*rows, strict=True))
        print(f"{kind:32} {refined:7.2f} {relative:6.2f} {to_whole:13.2f} {loss:12.3f}")


if __name__ == "__main__":
    main()
