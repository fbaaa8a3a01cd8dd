"""Which plan runs a network on a GPU: convolutions of our own or its modules, whichever is faster there.

What was measured before is in ``MEASURED``. On another GPU, or for another network, both plans are made when the
network is loaded, have to make the same picture of a small image, and are timed on it: a minute or two of compilation
at the first time, of which Triton keeps the results.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ...networks import SRNetwork
from ...notices import warn
from ..plan import Plan, Planner
from ..precision import picture
from ..pytorch.modules import ModulePlanner
from .graph import CudaGraphPlanner
from .own import OwnPlanner

# Of each GPU by its name, the faster plan, "own" or "modules", of networks by name and scale, and "in regions" or "by
# classes" where they have those: what `python bench/gpu_choices.py` prints. No GPU has been measured.
MEASURED: dict[str, dict[str, str]] = {}
SIZE = 272, 480  # of the image that is timed: whole cells, of which a quarter is refined
REPEATS = 5
ALIKE = 1.0  # levels of 255 that two pictures in 16 bits are apart on average, at most

Clock = Callable[[], float]


def fastest(network: SRNetwork, device: torch.device, dtype: torch.dtype | None) -> Planner | str:
    """The planner, ``dtype`` None is float16; or why there is none, which is said of networks with classes only.

    How many sub-images are of a class no graph of their modules could know, so these run without one in PyTorch, in
    float32 unless ``dtype`` says otherwise.
    """
    which = " by classes" if network.alternatives else "" if network.pair is None else " in regions"
    known = MEASURED.get(name_of(device), {}).get(f"{network.config.network} x{network.config.scale}{which}")
    if known is None and not torch.cuda.is_available():
        known = "modules"
    own = "the modules are known to be faster there" if known == "modules" else OwnPlanner.of(network, device, dtype)
    if known == "own" and not isinstance(own, str):
        return own
    if network.alternatives:
        return own if isinstance(own, str) else raced(own, _by_classes(network, device, dtype), 0)
    modules = CudaGraphPlanner(network, device, dtype)
    if isinstance(own, str):
        return modules
    cells = math.prod(side // network.config.patch_size for side in SIZE) // 4 if network.masked else 0
    return raced(own, modules, cells)


def _by_classes(network: SRNetwork, device: torch.device, dtype: torch.dtype | None) -> ModulePlanner:
    network = copy.deepcopy(network).to(device)
    network.convert(*[dtype or torch.float32] * 2)
    return ModulePlanner(network.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if torch.cuda.is_available() else "none"


def raced(own: Planner, modules: Planner, cells: int, clock: Clock = time.perf_counter) -> Planner:
    """The faster of two that make the same picture; ``modules`` where the other fails, or makes another one.

    ``cells``: how many are refined.
    """
    image = (picture(*SIZE)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).contiguous()
    usual, seconds, sound = timed(modules, image, cells, clock)
    try:
        found, less, finite = timed(own, image, cells, clock)
    except Exception as error:  # Triton's are of no kind in common; and where memory is short, the other plan is tiled
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        warn(f"convolutions of our own do not run on this GPU ({reason}); the modules of the network run instead")
        return modules
    if not (sound and finite):  # in this dtype: a wider one is asked for then
        return modules
    apart = float((usual.int() - found.int()).abs().float().mean())
    if apart > ALIKE:
        warn(
            f"convolutions of our own make another picture on this GPU than the modules of the network, {apart:.1f} "
            "levels apart; the modules run instead. Please report it with what `mga info` says"
        )
        return modules
    return own if less < seconds else modules


def timed(planner: Planner, image: Tensor, cells: int, clock: Clock) -> tuple[Tensor, float, bool]:
    """Its picture of the image, the median of seconds, and whether all values were finite."""
    height, width = image.shape[:2]
    plan: Plan = planner.plan(height, width, cells)
    plan.start()
    result = plan.run(image)
    seconds = []
    for _ in range(REPEATS):
        started = clock()
        plan.start()
        plan.run(image)
        seconds.append(clock() - started)
    return result, statistics.median(seconds), plan.finite is None or bool(plan.finite)
