"""A published network that refines regions of what a small one makes: ``mga convert --regions``.

"base"     a small network (``catalogue.SMALL``) of at most BASE_SHARE of the operations learns, by squared differences,
           the pictures that the published one makes of the user's images; no HR image is needed. The published
           network's own weights stay
"measure"  on images that were not trained on: the smallest halo with which a region is as in the whole picture, what a
           share of the cells brings and what it takes, and above which values of the mask the result is as near to the
           published network's as QUALITIES say
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn

from mga_kernels import MaskGuidedSR
from mga_kernels.catalogue import SMALL
from mga_kernels.networks import RegionConfig, RegionNetwork, WholeConfig, WholeNetwork
from mga_kernels.ops import high_pass
from mga_kernels.system.files import writable_folder

from ..complexity.counting import WholeCosts
from ..files.claim import claim_folder
from ..files.records import Record
from ..training.loop import Ema, pace_of, run_steps
from ..training.packs import Crops, Pair
from ..training.schedule import Plan, Schedule
from .light import fit_last
from .settings import Training

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
HALOS = (4, 8, 12, 16, 24, 32, 48)
AS_WHOLE = 52.0  # dB inside of regions against the whole picture: 15 % of what 45 dB leave
QUALITIES = {"high": 45.0, "fast": 40.0}  # dB of luma against the published network's pictures, the mean over images
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
PAYS = 0.9  # of the published network's time at most, at quality "high"


@dataclass(frozen=True)
class Point:
    """A share of cells refined: ``db`` to the published network, ``time`` as a part of its time, None if not taken."""

    share: float
    threshold: float
    db: float
    time: float | None = None


class Distilling:
    """One conversion. ``folder`` holds what it was begun with, the planned iterations and the state of the training."""

    def __init__(
        self,
        teacher: WholeNetwork,
        train: list[list[Pair]],
        held_out: list[Pair],
        folder: Path,
        begun: Record,
        minutes: float,
        patch_size: int = CELL,
        iterations: int | None = None,
        training: Training | None = None,
    ):
        self.teacher, self.minutes, self.given = teacher, minutes, iterations
        self.training = training or Training()
        self.folder, self.plan = folder, Plan(folder / "iterations.json")
        self.network = RegionNetwork(RegionConfig(base_config(teacher), teacher.config, patch_size)).eval()
        self.network.requires_grad_(False)
        self.network.refine.load_state_dict(teacher.state_dict())
        self.of_its_kind = start_from(self.network)
        self.whole = MaskGuidedSR(teacher, runtime="auto")
        self.points: list[Point] = []
        self.pays = False
        self.finished = False
        writable_folder(folder)
        remedy = "go on with that one, remove the folder or choose another -o"
        claim_folder(folder / "conversion.json", begun, "convert", remedy)
        self.crops = Crops(
            self._painted(train), teacher.config.scale, self._crop(), 2 * self.training.batch, self.training.seed
        )
        self.held_out = [middle(lr, MEASURED) for _, lr in held_out or train[0][:1]]

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
        room = min(TARGET_PIXELS, 60 * self.minutes * TARGET_SHARE / pace) / len(parts)
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
            run_steps("base", body, schedule, self.folder / "base.state", every, self._loss, lambda: "", ema)
        finally:
            ema.copy_to(body)
            body.eval().requires_grad_(False)

    def _loss(self, number: int) -> Tensor:
        lr, wanted = self.crops(number)
        made = self.network.base(lr.contiguous(memory_format=torch.channels_last))
        edge = min(MARGIN, lr.shape[2] // 4) * self.network.config.scale
        return (255 * (made - wanted)[..., edge:-edge, edge:-edge]).square().mean()

    def _iterations(self, body: torch.nn.Module) -> int:
        return max(1, round(60 * self.minutes * (0.9 - TARGET_SHARE) / pace_of(body, self._loss, 3)))

    def planned(self) -> dict[str, int]:
        """Iterations of the steps that were begun."""
        return self.plan.known()

    # --- what it brings

    def _measured(self) -> RegionConfig:
        coarse, whole = self._pictures(MaskGuidedSR(self.network.base)), self._pictures(self.whole)
        side = self.network.config.patch_size * self.network.config.scale
        masks = [high_pass(torch.from_numpy(picture)[None], side)[0] for picture in coarse]
        values = torch.cat([mask.flatten() for mask in masks]).sort(descending=True).values

        def point(share: float) -> Point:
            threshold = float(values[min(round(share * len(values)), len(values) - 1)]) if share < 1 else -1.0
            return Point(share, threshold, self._db(coarse, whole, masks, threshold, side))

        halo = self._halo(whole, masks, point(0.3).threshold, side)
        config = replace(self.network.config, halo=halo)
        chosen = {name: self._share_for(point, wanted) for name, wanted in QUALITIES.items()}
        shares = sorted({0.0, *SHARES, *(share for share in chosen.values() if share < 1)})
        self.points = self._timed([point(share) for share in shares], config)
        qualities = {name: point(share).threshold for name, share in chosen.items()}
        at_high = next((p.time for p in self.points if p.share == chosen["high"]), None)
        self.pays = at_high is not None and at_high <= PAYS
        return replace(config, qualities=qualities, quality="high")

    def _pictures(self, model: MaskGuidedSR) -> list[np.ndarray]:
        return [np.asarray(model.upscale(lr)) for lr in self.held_out]

    def _db(
        self,
        coarse: Sequence[np.ndarray],
        whole: Sequence[np.ndarray],
        masks: Sequence[Tensor],
        threshold: float,
        side: int,
    ) -> float:
        """Mean over images of the PSNR of luma, of what is refined above a threshold."""
        found = []
        for made, wanted, mask in zip(coarse, whole, masks, strict=True):
            refined = large(mask > threshold, side, wanted.shape)
            error = np.square(luma(np.where(refined[..., None], wanted, made)) - luma(wanted)).mean()
            found.append(10 * math.log10(255**2 / max(float(error), 1e-5)))
        return sum(found) / len(found)

    def _share_for(self, point: Callable[[float], Point], wanted: float) -> float:
        """The smallest share, in steps of a hundredth, that is so near to the published network."""
        low, high = 0, 100
        while low < high:
            middle_of = (low + high) // 2
            low, high = (low, middle_of) if point(middle_of / 100).db >= wanted else (middle_of + 1, high)
        return low / 100

    def _halo(self, whole: Sequence[np.ndarray], masks: Sequence[Tensor], threshold: float, side: int) -> int:
        """The smallest with which regions are as in the whole picture, or the largest that there is."""
        lr, wanted, mask = self.held_out[0], whole[0], masks[0]
        inside = large(mask > threshold, side, wanted.shape)
        for halo in HALOS:
            self.network.config = replace(self.network.config, halo=halo)
            made = np.asarray(MaskGuidedSR(self.network, runtime="own", threshold=threshold).upscale(lr))
            error = np.square(luma(made) - luma(wanted))[inside]
            if error.size and 10 * math.log10(255**2 / max(float(error.mean()), 1e-5)) >= AS_WHOLE:
                break
        return halo

    def _timed(self, points: list[Point], config: RegionConfig) -> list[Point]:
        """Interleaved, the best of some runs of the largest image held out, and the published network beside them."""
        lr = max(self.held_out, key=lambda image: image.size)
        self.network.config = config
        model = MaskGuidedSR(self.network, runtime="own")
        cells = math.prod(model.grid(*lr.shape[:2]))
        alone = MaskGuidedSR(self.teacher, runtime="own", device="cpu")
        runs = [lambda: alone.upscale(lr), *(self._at(model, lr, round(p.share * cells)) for p in points)]
        best = [math.inf] * len(runs)
        for repeat in range(4):
            for number, run in enumerate(runs):
                began = time.process_time()
                run()
                if repeat:
                    best[number] = min(best[number], time.process_time() - began)
        return [replace(p, time=spent / best[0]) for p, spent in zip(points, best[1:], strict=True)]

    def _at(self, model: MaskGuidedSR, lr: np.ndarray, k: int) -> Callable[[], object]:
        run = MaskGuidedSR(self.network, runtime="own", k=k)
        return lambda: run.upscale(lr)

    def report(self) -> str:
        """The curve, and whether it pays."""
        config = self.network.config
        lines = [
            f"{'share':>6} {'dB':>6} {'time':>6}   of the published network's, with a halo of {config.halo} pixels"
        ]
        lines += [f"{p.share:6.2f} {p.db:6.2f} {p.time or math.nan:6.2f}" for p in self.points]
        high = next((p for p in self.points if p.threshold == config.qualities["high"]), None)
        if self.pays and high is not None:
            return "\n".join(
                [*lines, f"it pays: {high.db:.1f} dB to the published network in {high.time:.2f} of its time"]
            )
        return "\n".join([*lines, f"it does not pay: {QUALITIES['high']:g} dB take {PAYS:.0%} of the time or more"])

    def facts(self) -> Record:
        """What the file says of it."""
        return {"curve": [asdict(p) for p in self.points], "pays": self.pays, "qualities": QUALITIES}


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


def tensor_of(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None] / 255


def luma(image: np.ndarray) -> np.ndarray:
    """Of BT.601, 16 to 235, as results are compared."""
    return cast(np.ndarray, 16 + image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255)


def large(cells: Tensor, side: int, shape: tuple[int, ...]) -> np.ndarray:
    """bool (H, W): the pixels of cells."""
    return cells.numpy().repeat(side, 0).repeat(side, 1)[: shape[0], : shape[1]]
