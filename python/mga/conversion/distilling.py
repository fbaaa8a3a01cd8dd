"""A published network that refines regions of what a small one makes: ``mga convert --regions``.

"base"     a small network (``catalogue.SMALL``) of at most BASE_SHARE of the operations learns, by squared differences,
           the pictures that the published one makes of the user's images; no HR image is needed. The published
           network's own weights stay
"measure"  on images that were not trained on: the smallest halo with which a region is as in the whole picture, what a
           share of the cells brings and what it takes, and above which values of the mask the result is as near to the
           published network's as QUALITIES say
"""

from __future__ import annotations

import time
from typing import cast

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from mga_kernels.catalogue import SMALL
from mga_kernels.networks import RegionConfig, RegionNetwork, WholeConfig, WholeNetwork

from ..complexity.counting import WholeCosts
from ..training.loop import Ema, pace_of, run_steps
from ..training.packs import Crops, Pair
from ..training.schedule import Schedule
from .curve import Measuring
from .light import fit_last
from .material import Material

BASE_SHARE = 0.12  # of the published network's operations that the small one may take
BASES = ((2, 16), (2, 24), (3, 24), (3, 32), (4, 32), (4, 48), (3, 64), (4, 64), (6, 64))  # blocks and channels
FITTED = 8  # batches to which the last convolution is fitted by least squares, before all layers are trained
RATE, FITTED_RATE = 4e-3, 1e-3  # the latter behind layers that were taken over
CROP = 32  # LR pixels a side at most: more of them teach more than larger ones do
CELL = 12  # LR pixels a side: whole tiles of 4 and of 6
MARGIN = 4  # LR pixels at the border of a crop, where the published network saw more
TARGET_PIXELS = 2_000_000  # LR pixels of which the published network makes pictures at most,
TARGET_SHARE = 0.2  # and no more than fit into this share of the time
SIDE = 96  # of the parts of images that they are
MEASURED = 320  # side of what is looked at of a held-out image


class Distilling(Measuring):
    """One conversion."""

    early = "measuring what there is"

    def __init__(
        self,
        teacher: WholeNetwork,
        material: Material,
        patch_size: int = CELL,
        iterations: int | None = None,
    ):
        self.material, self.training, self.given = material, material.training, iterations
        network = RegionNetwork(RegionConfig(base_config(teacher), teacher.config, patch_size)).eval()
        network.requires_grad_(False)
        network.refine.load_state_dict(teacher.state_dict())
        super().__init__(
            network, teacher, [middle(lr, MEASURED) for _, lr in material.held_out or material.train[0][:1]], "own"
        )
        self.of_its_kind = start_from(self.network)
        self.finished = False
        self.plan = material.claim()
        self.crops = Crops(
            self._painted(material.train),
            teacher.config.scale,
            self._crop(),
            2 * self.training.batch,
            self.training.seed,
        )

    def _crop(self) -> int:
        return min(self.training.crop, CROP)

    def _painted(self, groups: list[list[Pair]]) -> list[list[Pair]]:
        """Parts of images, spread over them, with the pictures that the published network makes of them."""
        side = max(SIDE, self._crop())
        parts = [[part for _, lr in group for part in parts_of(lr, side)] for group in groups]
        self.whole.upscale(parts[0][0])
        began = time.perf_counter()
        self.whole.upscale(parts[0][0])
        pace = (time.perf_counter() - began) / parts[0][0][..., 0].size
        room = min(TARGET_PIXELS, 60 * self.material.minutes * TARGET_SHARE / pace) / len(parts)
        chosen = [spread(group, max(1, int(room / side**2))) for group in parts]
        total = sum(map(len, chosen))
        painting = track((part for group in chosen for part in group), "pictures of the published network", total=total)
        pictures = iter([(np.asarray(self.whole.upscale(part)), part) for part in painting])
        return [[next(pictures) for _ in group] for group in chosen]

    def run(self) -> None:
        """All steps, from where they stopped."""
        self._train()
        self.measure()
        self.finished = True

    def finish_early(self) -> None:
        self.measure()

    def measure(self) -> None:
        """What it brings, as far as it is trained."""
        self.network.config = self._measured()

    def _train(self) -> None:
        body = self.network.base.body.requires_grad_(True)
        body.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.of_its_kind:  # to random layers a fit has weights that are too large to learn on
            last = cast(nn.Sequential, body.body)[-1]
            assert isinstance(last, nn.Conv2d)
            fit_last(last, self.network.base, self.teacher.config.scale, 1.0, map(self.crops, range(FITTED)))
        count = self.plan.iterations("base", lambda: self.given or self._iterations(body))
        peak = self.training.rates.get("base", FITTED_RATE if self.of_its_kind else RATE)
        schedule = Schedule(count, 1, max(1, min(100, count // 10)), 0.1 * peak, peak, 0.01 * peak)
        ema = Ema(body, self.training.ema_decay)
        every = max(1, min(500, count // 8))
        try:
            run_steps("base", body, schedule, self.material.folder / "base.state", every, self._loss, lambda: "", ema)
        finally:
            ema.copy_to(body)
            body.eval().requires_grad_(False)

    def _loss(self, number: int) -> Tensor:
        lr, wanted = self.crops(number)
        made = self.network.base(lr.contiguous(memory_format=torch.channels_last))
        edge = min(MARGIN, lr.shape[2] // 4) * self.network.config.scale
        return (255 * (made - wanted)[..., edge:-edge, edge:-edge]).square().mean()

    def _iterations(self, body: torch.nn.Module) -> int:
        return max(1, round(60 * self.material.minutes * (0.9 - TARGET_SHARE) / pace_of(body, self._loss, 3)))

    def planned(self) -> dict[str, int]:
        """Iterations of the steps that were begun."""
        return self.plan.known()


def base_config(teacher: WholeNetwork) -> WholeConfig:
    """The largest of BASES that takes no more than its share of the operations."""
    scale = teacher.config.scale
    limit = BASE_SHARE * WholeCosts(teacher.config).cost("whole", 64, 64).macs
    found = [WholeConfig(SMALL, scale, blocks, {"channels": channels}) for blocks, channels in BASES]
    fitting = [config for config in found if WholeCosts(config).cost("whole", 64, 64).macs <= limit]
    return fitting[-1] if fitting else found[0]


@torch.no_grad()
def start_from(network: RegionNetwork) -> bool:
    """Whether the Base-Net is of the published network's kind, whose first layers it then begins with.

    At first it adds nothing to the enlarged image.
    """
    torch.manual_seed(0)
    base, refine = network.config.base, network.config.refine
    own = network.base.body.state_dict()
    last = f"body.{2 * base.blocks + 2}"
    same = refine.network == SMALL and refine.settings.get("channels", 64) == base.settings["channels"]
    given = network.refine.body.state_dict() if same else {}
    for name, value in own.items():
        if name.startswith(last):
            value.zero_()
        elif same:
            value.copy_(given[name])
        elif value.ndim == 4:
            torch.nn.init.kaiming_normal_(value, 0.2)
    return same


def parts_of(image: np.ndarray, side: int) -> list[np.ndarray]:
    """Squares side by side, as many as fit; an image that is smaller in one piece."""
    rows, columns = (max(1, length // side) for length in image.shape[:2])
    return [
        np.ascontiguousarray(image[side * i : side * (i + 1), side * j : side * (j + 1)])
        for i in range(rows)
        for j in range(columns)
    ]


def spread(parts: list[np.ndarray], count: int) -> list[np.ndarray]:
    """So many of them, evenly."""
    return [parts[i] for i in sorted({round(i) for i in np.linspace(0, len(parts) - 1, min(count, len(parts)))})]


def middle(image: np.ndarray, side: int) -> np.ndarray:
    top, left = (max(0, (length - side) // 2) for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])
