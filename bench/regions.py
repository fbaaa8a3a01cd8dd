"""What refining regions brings, and its rivals: ``python bench/regions.py MODEL --hr DIR [--rivals FILE ...]
[--runtimes openvino ...]``.

MODEL is what ``mga convert --regions`` wrote. For shares of cells and the qualities of the file: PSNR of luma to the
published network's picture and to the HR images, and seconds as a part of the published network's in our own engine;
beside random cells and those of the largest true error. Rivals are whole networks, for which the same is printed, and
the published network in other runtimes.
Images are HR; LR ones are made of them by bicubic shrinking to 960 x 540. With ``--sets DIR --only B100`` they are
pairs of a test set instead, as they are. ``--json FILE`` keeps the rows of each image: those that are there are not
measured again, and the table is of all that are.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from mga.conversion.curve import large
from mga.evaluation.metrics import luma, psnr_y
from mga.evaluation.testsets import find_sets, load_pair
from mga_kernels import MaskGuidedSR
from mga_kernels.checkpoints import load_checkpoint
from mga_kernels.networks import WholeNetwork
from mga_kernels.networks.detail import detail
from mga_kernels.networks.regions import RegionNetwork
from mga_kernels.ops import high_pass

SIZE = 960, 540
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)


def pairs_of(folder: Path, scale: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Names, LR and HR: the middle of an image in the shape of a screen."""
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in (".jpg", ".png", ".webp"):
            continue
        image = Image.open(file).convert("RGB")
        image = image.rotate(90, expand=True) if image.width < image.height else image
        width, height = (side * scale for side in SIZE)
        factor = max(width / image.width, height / image.height)
        size = max(width, round(image.width * factor)), max(height, round(image.height * factor))
        hr = image.resize(size, Image.Resampling.BICUBIC).crop((0, 0, width, height))
        yield file.name, np.asarray(hr.resize(SIZE, Image.Resampling.BICUBIC)), np.asarray(hr)


def pairs_of_sets(folder: Path, only: Sequence[str], scale: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The same of test sets."""
    for one in find_sets(folder, scale, only):
        for hr_file, lr_file in one.pairs:
            hr, lr = load_pair(hr_file, lr_file, scale)
            yield f"{one.name}/{hr_file.name}", lr, hr


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


class Rows(NamedTuple):
    """What an image gives, by name: share of the cells, part of the published network's time, dB to its picture, and to
    HR less its own; NaN where there is none."""

    of_whole: float  # dB of the published network to HR
    rows: dict[str, tuple[float, float, float, float]]


class Bench:
    """``network`` beside its Refine-Net, whole, and ``rivals``, whole networks by name."""

    def __init__(
        self,
        network: RegionNetwork,
        rivals: dict[str, MaskGuidedSR],
        repeats: int,
        shares: Sequence[float] = SHARES,
        runtimes: Sequence[str] = (),
    ):
        self.network, self.rivals, self.repeats, self.shares = network, rivals, repeats, shares
        whole = WholeNetwork(network.config.refine)
        whole.load_state_dict(network.refine.state_dict())
        self.whole, self.base = MaskGuidedSR(whole.eval(), runtime="own"), MaskGuidedSR(network.base, runtime="own")
        self.rivals |= {f"the whole network, {name}": MaskGuidedSR(whole, runtime=name) for name in runtimes}
        self.ways = {f"share {share}": {"fraction": share} for share in shares}
        self.ways |= {name: {"threshold": value} for name, value in network.config.qualities.items()}

    def rows_of(self, lr: np.ndarray, hr: np.ndarray) -> Rows:
        scale = self.network.config.scale
        wanted, coarse = np.asarray(self.whole.upscale(lr)), np.asarray(self.base.upscale(lr))
        of_whole = psnr_y(wanted, hr, scale)
        makers = {"the whole network": lambda: self.whole, "Base-Net": lambda: self.base}
        makers |= {kind: partial(MaskGuidedSR, self.network, runtime="own", **how) for kind, how in self.ways.items()}
        makers |= {kind: partial(lambda model: model, model) for kind, model in self.rivals.items()}
        rows = {}
        for kind, make in makers.items():  # one after the other, since each keeps gigabytes
            model = make()
            made = np.asarray(model.upscale(lr))
            runs = [[seconds_of(partial(one.upscale, lr)) for one in (model, self.whole)] for _ in range(self.repeats)]
            relative = statistics.median(mine / its for mine, its in runs)
            refined = math.nan
            if kind in self.ways:
                refined = len(model.explain(lr).indices) / math.prod(model.grid(*lr.shape[:2]))
            rows[kind] = refined, relative, db(made, wanted), psnr_y(made, hr, scale) - of_whole
        side = self.network.config.patch_size * scale
        for kind, values in orders_of(coarse, wanted, side).items():
            for share in self.shares:
                inside = large(chosen(values, share), side, wanted.shape)[..., None]
                made = np.where(inside, wanted, coarse)
                loss = psnr_y(made, hr, scale) - of_whole
                rows[f"cells by {kind}, {share}"] = share, math.nan, db(made, wanted), loss
        return Rows(of_whole, rows)


def orders_of(coarse: np.ndarray, wanted: np.ndarray, side: int) -> dict[str, torch.Tensor]:
    """Values of cells of ``side`` pixels, of which the largest come first."""
    error = torch.from_numpy(np.square(luma(coarse) - luma(wanted)))[None, None]
    picture = torch.from_numpy(coarse)[None]
    mask = high_pass(picture, side)[0]
    return {
        "largest error": torch.nn.functional.avg_pool2d(error, side, ceil_mode=True)[0, 0],
        "detail, evened": detail(picture, side, True)[0],
        "high-pass": mask,
        "random": torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--hr", type=Path, help="folder of HR photographs")
    images.add_argument("--sets", type=Path, help="folder of test sets")
    parser.add_argument("--only", nargs="*", default=(), help="names of sets")
    parser.add_argument("--rivals", type=Path, nargs="*", default=[], help="files of whole networks")
    parser.add_argument(
        "--runtimes", nargs="*", default=(), choices=("openvino", "pytorch"), help="the published network in these, too"
    )
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES, help="of the cells that are refined")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path, help="keeps the rows of each image")
    asked = parser.parse_args()
    network = load_checkpoint(asked.model)
    if not isinstance(network, RegionNetwork):
        parser.error(f"{asked.model} does not refine regions")
    rivals = {file.stem: MaskGuidedSR.from_checkpoint(file) for file in asked.rivals}
    bench = Bench(network, rivals, asked.repeats, asked.shares, asked.runtimes)
    kept = json.loads(asked.json.read_text()) if asked.json and asked.json.exists() else {}
    scale = network.config.scale
    pairs = pairs_of(asked.hr, scale) if asked.hr else pairs_of_sets(asked.sets, asked.only, scale)
    for name, lr, hr in pairs:
        if name not in kept:
            kept[name] = bench.rows_of(lr, hr)
            if asked.json:
                asked.json.write_text(json.dumps(kept, indent=1))
            print(f"{name}: the whole network {kept[name].of_whole:.2f} dB", flush=True)
    print(f"\n{len(kept)} images{'':24}   share   time   dB to whole   dB to HR less whole's")
    of_images = [rows for _, rows in kept.values()]
    for kind in of_images[0]:
        columns = zip(*(rows[kind] for rows in of_images), strict=True)
        refined, relative, to_whole, loss = (statistics.fmean(values) for values in columns)
        print(f"{kind:32} {refined:7.2f} {relative:6.2f} {to_whole:13.2f} {loss:12.3f}")


if __name__ == "__main__":
    main()
