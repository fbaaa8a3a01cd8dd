"""A published network that refines regions of what a small one makes: ``mga convert --regions``.

"base"     a small network (``catalogue.SMALL``) of at most BASE_SHARE of the operations learns, by squared differences,
           the pictures that the published one makes of the user's images, at their borders too, and of flat ones,
           which are never refined; no HR image is needed. What it makes of the busiest parts, which will be refined,
           counts little. The published network's own weights stay
"measure"  on images that were not trained on: with which halo a quality takes least time, what a share of the cells
           brings and what it takes, and above which values of the mask the result is as near to the published network's
           as QUALITIES say
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor, nn

from mga_kernels.catalogue import SMALL
from mga_kernels.networks import RegionConfig, RegionNetwork, WholeConfig, WholeNetwork
from mga_kernels.runtimes.precision import fast_bf16

from ..complexity.counting import WholeCosts
from ..evaluation.metrics import GREY
from ..files.folders import spread
from ..training.colour import colour_values
from ..training.loop import Ema, pace_of, run_steps
from ..training.packs import Crops, Pair, to_tensors
from ..training.schedule import Schedule
from .curve import Measuring, side_within
from .light import fit_last
from .material import Material
from .pictures import middle

# Of the published network's operations that the small one may take. Of Compact twice as many bring less than half of
# what refining more cells brings in the same time.
BASE_SHARE = 0.065
BASES = ((2, 16), (2, 24), (3, 24), (3, 32), (4, 32), (4, 48), (3, 64), (4, 64), (6, 64))  # blocks and channels
FITTED = 8  # batches to which the last convolution is fitted by least squares, before all layers are trained
RATE, FITTED_RATE = 4e-3, 1e-3  # the latter behind layers that were taken over;
STEADY = 128  # blocks times channels; with more of them the former is as much lower, or training falls apart,
MEMORY = 0.99  # as it does where the squares of gradients are remembered for longer: a large one then moves too much
CROP = 32  # LR pixels a side at most: more of them teach more than larger ones do
CELL = 12  # LR pixels a side: whole tiles of 4 and of 6
MARGIN = 4  # LR pixels at the border of a crop, where the published network saw more
TARGET_PIXELS = 2_000_000  # LR pixels of which the published network makes pictures at most,
TARGET_SHARE = 0.2  # and no more than fit into this share of the time
SIDE = 96  # of the parts of images that they are
MEASURING_SHARE = 0.1  # of the time that measuring takes
BUSY = 0.3  # of a batch: where it has most detail, which the published network will make,
BUSY_WEIGHT = 0.1  # an error counts so much of one elsewhere
CORNERS = 8  # of parts of images are in an iteration,
BORDER_WEIGHT = 0.2  # and so much counts an error where the network sees their border
COLOURS, FLAT_SIDE = 128, 33  # flat images, of which photographs have few, and LR pixels a side of them;
FLATS = 8  # so many of them are in an iteration,
FLAT_WEIGHT = 10.0  # and so much counts what their errors have above a level of 255, of less than two its square


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
        looked_at = [lr for _, lr in material.held_out or material.train[0][:1]]
        super().__init__(network, teacher, looked_at, "own")
        self.bf16 = fast_bf16()
        self.of_its_kind = start_from(self.network)
        self.finished = False
        self.plan = material.claim()
        side = max(SIDE, self._crop())
        self.parts = [[part for _, lr in group for part in parts_of(lr, side)] for group in material.train]
        self.pace = self._pace()
        measured = side_within(60 * material.minutes * MEASURING_SHARE, self.pace)
        self.held_out = [middle(lr, measured) for lr in looked_at]

    def _crop(self) -> int:
        return min(self.training.crop, CROP)

    def _pace(self) -> float:
        """Seconds in which the published network makes the picture of a pixel."""
        part = self.parts[0][0]
        self.whole.upscale(part)
        began = time.perf_counter()
        self.whole.upscale(part)
        return (time.perf_counter() - began) / part[..., 0].size

    @cached_property
    def crops(self) -> Crops:
        """Of pictures that are made when there is something to learn from them."""
        return Crops(
            self._painted(), self.teacher.config.scale, self._crop(), 2 * self.training.batch, self.training.seed
        )

    def _painted(self) -> list[list[Pair]]:
        """Parts of images, spread over them, with the pictures that the published network makes of them."""
        room = min(TARGET_PIXELS, 60 * self.material.minutes * TARGET_SHARE / self.pace) / len(self.parts)
        chosen = [spread(group, max(1, int(room / group[0][..., 0].size))) for group in self.parts]
        total = sum(map(len, chosen))
        painting = track((part for group in chosen for part in group), "pictures of the published network", total=total)
        pictures = iter([(np.asarray(self.whole.upscale(part)), part) for part in painting])
        return [[next(pictures) for _ in group] for group in chosen]

    @cached_property
    def flats(self) -> tuple[Tensor, Tensor]:
        """Colours (COLOURS, 3) in 0..1, and what the published network makes in the middle of images of them."""
        rng = np.random.default_rng(self.training.seed)
        colours = np.rint(255 * colour_values(rng, COLOURS)).astype(np.uint8)
        images = (np.full((FLAT_SIDE, FLAT_SIDE, 3), colour, np.uint8) for colour in colours)
        centre = FLAT_SIDE // 2 * self.teacher.config.scale
        made = np.stack([np.asarray(self.whole.upscale(image))[centre, centre] for image in images])
        return torch.from_numpy(colours) / 255, torch.from_numpy(made) / 255

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
        state = self.material.folder / "base.state"
        if self.of_its_kind and not state.exists():  # to random layers a fit has weights that are too large to learn on
            last = cast(nn.Sequential, body.body)[-1]
            assert isinstance(last, nn.Conv2d)
            fit_last(last, self.network.base, self.teacher.config.scale, 1.0, map(self.crops, range(FITTED)))
        count = self.plan.iterations("base", lambda: self.given or self._iterations(body))
        base = self.network.config.base
        rate = RATE * min(1, STEADY / (base.blocks * base.settings["channels"]))
        peak = self.training.rates.get("base", FITTED_RATE if self.of_its_kind else rate)
        warmup = max(1, min(100, count // 10))
        schedule = Schedule(count, 1, warmup, 0.1 * peak, peak, 0.01 * peak, memory=MEMORY)
        ema = Ema(body, self.training.ema_decay)
        every = max(1, min(500, count // 8))
        try:
            run_steps("base", body, schedule, state, every, self._loss, lambda: "", ema)
        finally:
            ema.copy_to(body)
            body.eval().requires_grad_(False)

    def _loss(self, number: int) -> Tensor:
        lr, wanted = self.crops(number)
        made = self._made(lr)
        edge = min(MARGIN, lr.shape[2] // 4) * self.network.config.scale
        wrong = (255 * (made - wanted)).square().mean(1, keepdim=True)
        weights = weights_of(wanted, self.teacher.config.scale, self.network.config.patch_size)
        wrong, weights = (part[..., edge:-edge, edge:-edge] for part in (wrong, weights))
        return (wrong * weights).sum() / weights.sum() + self._border_loss(number) + self._flat_loss(number)

    def _made(self, lr: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            made: Tensor = self.network.base(lr.contiguous(memory_format=torch.channels_last))
        return made.float()

    def _border_loss(self, number: int) -> Tensor:
        """Where a network sees the zeros behind the border of an image, which crops cut off, so there it learns it.

        The published network's pictures are of whole parts, whose borders it saw, too.
        """
        network = self.network
        scale, reach = network.config.scale, network.base.reach.front
        assert reach is not None
        side = min(self.crops.crop, 2 * reach + MARGIN)
        rng = np.random.default_rng([self.training.seed, number])
        chosen = [self.crops.pairs[index] for index in rng.choice(len(self.crops.pairs), CORNERS)]
        lr, wanted = to_tensors([(corner(hr, side * scale, number), corner(lr, side, number)) for hr, lr in chosen])
        made = self._made(lr)
        turned = [axis for axis, bit in ((2, 1), (3, 2)) if number & bit]  # which makes it the first corner
        wrong = (255 * (made - wanted)).square().mean(1, keepdim=True).flip(turned)
        weights = weights_of(wanted, scale, network.config.patch_size).flip(turned)
        seen, inner = min(reach, side // 2) * scale, (side - MARGIN) * scale
        weights[..., seen:, seen:] = 0
        wrong, weights = (part[..., :inner, :inner] for part in (wrong, weights))
        return BORDER_WEIGHT * (wrong * weights).sum() / weights.sum()

    def _flat_loss(self, number: int) -> Tensor:
        """Of FLATS colours, where the border of an image is not seen: its own would weigh more than the colour."""
        chosen = torch.arange(FLATS * number, FLATS * (number + 1)) % COLOURS
        colours, wanted = (part[chosen, :, None, None] for part in self.flats)
        reach, scale = self.network.base.reach.front, self.network.config.scale
        assert reach is not None
        side = 2 * reach + 1
        made = self.network.base(colours.expand(-1, -1, side, side))
        centre = slice(reach * scale, (reach + 1) * scale)
        above = ((255 * (made[..., centre, centre].float() - wanted)).abs() - 1).relu()
        return 2 * FLAT_WEIGHT * F.huber_loss(above, torch.zeros_like(above))

    def _iterations(self, body: torch.nn.Module) -> int:
        seconds = 60 * self.material.minutes * (1 - TARGET_SHARE - MEASURING_SHARE)
        return max(1, round(seconds / pace_of(body, self._loss, 3)))

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


@torch.no_grad()
def weights_of(wanted: Tensor, scale: int, cell: int) -> Tensor:
    """(B, 1, sH, sW): what an error counts, 1 or, where a cell around it would be among the first to be refined,
    BUSY_WEIGHT.

    ``wanted``: (B, 3, sH, sW). Detail is what the mask sees (``ops.high_pass``), around each LR pixel.
    """
    light = F.pad((wanted * wanted.new_tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    detail = F.avg_pool2d((light[..., 1:-1, 1:-1] - F.avg_pool2d(light, 3, 1)).square(), scale)
    detail = F.avg_pool2d(detail, cell // 2 * 2 + 1, 1, cell // 2, count_include_pad=False)
    most = detail.flatten().kthvalue(max(1, round((1 - BUSY) * detail.numel()))).values
    weights = torch.where(detail > most, BUSY_WEIGHT, 1.0)
    return weights.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def corner(image: np.ndarray, side: int, number: int) -> np.ndarray:
    """Square of an image at one of its four corners: the first bit of ``number`` is for the last rows, the second for
    the last columns."""
    rows, columns = (slice(-side, None) if number & bit else slice(side) for bit in (1, 2))
    return image[rows, columns]


def parts_of(image: np.ndarray, side: int) -> list[np.ndarray]:
    """Squares side by side, as many as fit; an image that is smaller in one piece."""
    rows, columns = (max(1, length // side) for length in image.shape[:2])
    return [
        np.ascontiguousarray(image[side * i : side * (i + 1), side * j : side * (j + 1)])
        for i in range(rows)
        for j in range(columns)
    ]
