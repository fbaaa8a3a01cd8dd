"""A network as an engine runs it in one dtype: its plans, and how images of each size are run."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch

from .. import runtimes
from ..networks import SRNetwork
from ..networks.config import HIGH_PASS
from ..networks.interface import padded_size, working_bytes
from ..system import allocator
from ..system.memory import memory_errors, require_memory
from ..system.threads import Lock, put_right_after_fork
from ..version import foreign_code
from .choice import Choice
from .settings import Settings

PLANS_KEPT = 2  # image sizes whose buffers stay allocated
CUT = "use a smaller image or cut it into parts"  # what to do where there is no memory for it

Key = tuple[int, int, int, bool]  # height, width, K, whether -D is run


class Runner:
    """``network``, which becomes the runner's own: tensors in ``dtype``, photographs as ``runtimes.prepare`` finds.

    ``wanted``: the dtype of photographs, None for the fastest. ``lock`` is held by whoever runs a plan or measures
    one, since a plan has one set of buffers and what is measured at the same time takes longer; the plans that are
    kept are looked at without it. ``deep``: photographs are of more than 8 bits a channel (see ``runtimes.deep``).
    """

    def __init__(
        self,
        network: SRNetwork,
        device: torch.device,
        dtype: torch.dtype,
        wanted: torch.dtype | None,
        settings: Settings,
        lock: Lock,
        deep: bool = False,
    ):
        self.config, self.device, self.dtype = network.config, device, dtype
        self.amount = settings.amount or self.config.usual
        self.free = network.masked and settings.mask == HIGH_PASS
        prepared = network if wanted in (None, dtype) else copy.deepcopy(network)  # which is converted to ``wanted``
        self.planner, self.refused = (
            runtimes.deep(prepared, device, settings.runtime)
            if deep
            else runtimes.prepare(prepared, device, wanted, settings.runtime)
        )
        self.narrow = self.planner.narrow or dtype  # of photographs, as far as it is watched
        self.model = network.to(device, dtype)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.budget = runtimes.Budget(self.planner, self.model, device, settings.memory_bytes, settings.tile)
        self.plans: dict[Key, runtimes.Plan] = {}  # never changed but replaced, so that others may look at it meanwhile
        # Weak, because the plans of an engine, which hold gigabytes, go with its last reference.
        self.choice = Choice(self.config, self.amount, settings.mode, network.masked, weakref.proxy(self), lock)
        put_right_after_fork(self)
        allocator.give_back()  # what copies of the weights and trials have left

    @property
    def description(self) -> str:
        """Arithmetic and what does it."""
        return self.planner.description

    @property
    def settings(self) -> dict[str, object]:
        """What else decides how long a plan takes, as JSON takes it: memory, and the code of a foreign network."""
        classes: list[type] = [*map(type, self.model.children())]
        if (own := self.config.definition.part("cpu")) is not None:
            classes.append(own)
        tile = {} if self.budget.tile is None else {"tile": self.budget.tile}
        free = {"mask": HIGH_PASS} if self.free else {}
        return {"memory": self.budget.memory, "network": foreign_code(*classes), **tile, **free}

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of cells of an LR image of this size."""
        rows, columns = padded_size(self.config, height, width)
        return rows // self.config.patch_size, columns // self.config.patch_size

    def what(self, height: int, width: int, batch: int = 1) -> str:
        """What is being done, for errors."""
        scale = self.config.scale
        return f"upscaling {batch} image(s) of {width}x{height} to {width * scale}x{height * scale}"

    def memory_errors(self, height: int, width: int, batch: int = 1) -> AbstractContextManager[None]:
        """What an allocator raises within it becomes an OutOfMemoryError."""
        return memory_errors(self.what(height, width, batch), str(self.device), CUT)

    @contextmanager
    def memory_guard(self, shape: Sequence[int]) -> Iterator[None]:
        """``memory_errors`` for tensors (B, 3, H, W), refused before they are started where they cannot fit."""
        batch, _, height, width = shape
        if self.device.type == "cpu":
            needed = batch * working_bytes(self.config, self.model.working_values, height, width, self.dtype.itemsize)
            require_memory(needed, self.what(height, width, batch), CUT)
        with self.memory_errors(height, width, batch):
            yield

    def plan(self, height: int, width: int) -> runtimes.Plan:
        """The plan for an LR image of this size with the model's K; those used last are kept."""
        key = self._key(height, width)
        kept = dict(self.plans)
        plan = kept.pop(key, None)
        if plan is None:
            while kept and (len(kept) >= PLANS_KEPT or not self.budget.fits(*key, _bytes(kept))):
                del kept[next(iter(kept))]
            self.plans = kept
            plan = self.make_plan(*key)
            plan.threshold = self.amount.threshold
        self.plans = {**kept, key: plan}
        return plan

    def make_plan(self, height: int, width: int, k: int, dense: bool) -> runtimes.Plan:
        """A plan that is not kept; OutOfMemoryError where it does not fit beside those that are."""
        plan = self.budget.plan(height, width, k, dense, self.held(), self.what(height, width))
        plan.free = self.free
        return plan

    def held(self) -> int:
        """Bytes of the plans that are kept."""
        return _bytes(self.plans)

    def shrink(self, height: int, width: int) -> bool:
        """After memory ran out: let the next plan of this size take less; False where there is no such way."""
        self.plans = {}
        return self.budget.shrink(*self._key(height, width))

    def shrink_measured(self, height: int, width: int, k: int) -> bool:
        """The same for a plan of -M that ``make_plan`` made."""
        self.plans = {}
        return self.budget.shrink(height, width, k, False)

    def prepared(self) -> list[str]:
        """What was chosen for the sizes that are prepared."""
        return [
            ", ".join(filter(None, (f"{width}x{height}", self.choice.why(height, width), plan.parts)))
            for (height, width, _, _), plan in self.plans.items()
        ]

    def after_fork(self) -> None:
        """Another thread may have been at work in them."""
        self.plans = {}

    def _key(self, height: int, width: int) -> Key:
        dense = self.choice.dense(height, width)
        return height, width, 0 if dense else self.choice.k(height, width), dense


def _bytes(kept: dict[Key, runtimes.Plan]) -> int:
    return sum(plan.bytes for plan in kept.values())
