"""What an engine can be asked for: ``Settings`` is the only list of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Concatenate, ParamSpec, TypeVar

import torch

from ..errors import InputError
from ..networks import SRNetwork
from ..networks.amount import Amount
from ..networks.config import HIGH_PASS, LEARNED, MASKS
from ..quantities import check_whole_number
from ..system.memory import parse_memory
from .arguments import check_whole, choose_dtype

SMALLEST_TILE = 32
WHOLE = "whole"  # the quality that every model has

Setting = int | float | str | torch.device | torch.dtype | None

P = ParamSpec("P")
Self = TypeVar("Self")
First = TypeVar("First")
Made = TypeVar("Made")
Returned = TypeVar("Returned")


@dataclass(frozen=True)
class Settings:
    """Of ``MaskGuidedSR``, in the order in which it takes them; InputError for what cannot be.

    K, the number of p x p cells refined per image, is ``k``, or ``fraction`` of the image's cells; it is never more
    than the number of cells. By default it is the paper's 16,000 / p^2 (K = 1000 at p = 4), and of a network that
    refines regions what its own quality, or else its share, says.

    ``device``: "auto" is CUDA where there is one. ``dtype``: "auto" is float32 for tensors, and for photographs
    float16 on a GPU, and on a CPU that multiplies in bfloat16 this or float32, whichever is faster for the network, as
    far as it costs less than 0.02 dB. Any other is that of photographs, too, in convolutions of ours where they have
    it. Where a network gives values that float16 cannot hold, a warning says so and bfloat16 or float32 is used
    from then on.

    ``threshold`` refines, of these K, only the cells whose mask value is larger; ``k`` may limit them. The mask
    predicts the error of a cell: 0 where refining changes nothing, 1 where it changes as much as at the worst twentieth
    of the training set's cells (see ``mga.training.objectives``); networks trained by others have scales of their own.
    Of regions it is the detail of the coarse image, some hundredths (``mask`` "high-pass").

    ``quality`` says how good a photograph is to be instead: "whole" is ``mode`` "dense"; what else a model knows, such
    as "high" and "fast", are thresholds of its own, which its file holds (``mga convert --regions``).

    ``mask``: by what the cells of photographs are chosen. "learned" is the network's mask, which predicts errors;
    "high-pass" costs nothing: how far the coarse image's luma is from its mean over 3 x 3 pixels, root mean square over
    a cell (see ``ops.high_pass``). By default the model says which (``ModelConfig.usual_mask``); a ``threshold`` is one
    of the learned mask where there is one.

    ``max_ms``: as many as there is time for, so that a photograph takes no longer than these milliseconds on this
    machine, from bytes to bytes. That is measured once for each size, which takes some twenty times as long, and kept
    in a file (see ``engine.timings``). Tensors are refined with the same K. Where even K = 0 takes longer, it is used
    with a warning.

    ``mode``: how photographs are run. "masked" is -M, "dense" -D (the Refine-Net over everything, so that K has no
    meaning), "auto" measures both once for each size, where K > 0, and runs the faster; ``info`` tells which. It is
    "masked" where a quality or a threshold refines regions, of which each image has its own share. A whole
    network, which has no mask, only has "dense", which is its default; the others have "masked".

    ``runtime``: what runs photographs: "own" (on a CPU convolutions of ours, on a GPU a CUDA graph), "openvino" or
    "pytorch"; "auto" is the first of them that can (see ``info``).

    ``memory``, bytes or a text such as "8GiB", is what upscaling a photograph may take in addition to the model, by
    default nine tenths of what is free. A larger image is cut into overlapping tiles, with the result of the whole
    image and one K for all of it (see ``runtimes.tiles``); tensors are never cut.

    ``tile`` cuts photographs into tiles of so many LR pixels a side with 16 pixels around each, as other programs do,
    instead of by ``memory``. The result is that of the whole image only where the network looks no further, and a
    warning says where it does.
    """

    k: int | None = None
    fraction: float | None = None
    device: str | torch.device = "auto"
    dtype: str | torch.dtype = "auto"
    _: KW_ONLY
    threshold: float | None = None
    max_ms: float | None = None
    mode: str | None = None
    runtime: str = "auto"
    memory: int | str | None = None
    tile: int | None = None
    quality: str | None = None
    mask: str | None = None

    def __post_init__(self) -> None:
        plain = vars(self.amount) | {"memory": self.memory_bytes, "device": str(self.device)}
        if self.mask not in (None, *MASKS):
            raise InputError(f"MaskGuidedSR: mask {self.mask!r} does not exist; choose one of {', '.join(MASKS)}")
        if self.tile is not None:
            plain["tile"] = check_whole_number(
                "MaskGuidedSR: tile is the side of tiles in pixels", self.tile, SMALLEST_TILE
            )
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        choose_dtype(self.dtype)

    def of(self, network: SRNetwork) -> Settings:
        """These for ``network``, with its usual mode where none was asked for; InputError where it cannot run so."""
        if self.mask == LEARNED and network.masked and network.mask_module is None:
            raise InputError("MaskGuidedSR: this network has no learned mask; leave mask out")
        if self.quality is not None and self.quality != WHOLE:
            return self._of_quality(network, self.quality).of(network)
        if self.quality == WHOLE and (self.amount or self.mode not in (None, "dense")):
            raise InputError(
                'MaskGuidedSR: quality "whole" refines everything; leave out K, threshold, max_ms and mode'
            )
        if network.masked:
            mode = self.mode or ("masked" if self.quality is None else "dense")
            return replace(self, mode=mode, mask=self._mask(network))
        check_whole(**vars(self.amount), mask=self.mask, mode=None if self.mode == "dense" else self.mode)
        return replace(self, mode="dense")

    def _of_quality(self, network: SRNetwork, quality: str) -> Settings:
        """These with the threshold of a quality in its place."""
        known = network.config.qualities
        if quality not in known:
            names = ", ".join([WHOLE, *known])
            raise InputError(f"MaskGuidedSR: this model has no quality {quality!r}; choose one of {names}")
        if self.mode == "dense" or self.fraction is not None or self.threshold is not None or self.max_ms is not None:
            raise InputError("MaskGuidedSR: a quality is a threshold; leave out fraction, threshold, max_ms and mode")
        return replace(self, mode=self.mode or "masked", threshold=known[quality], quality=None)

    def _mask(self, network: SRNetwork) -> str:
        """By what cells are chosen: what was asked for, or what is usual of the network."""
        if network.mask_module is None:
            return HIGH_PASS
        return self.mask or (network.config.usual_mask if self.threshold is None else LEARNED)

    @property
    def amount(self) -> Amount:
        return Amount(self.k, self.fraction, self.threshold, self.max_ms)

    @property
    def memory_bytes(self) -> int | None:
        return None if self.memory is None else parse_memory(self.memory)

    @property
    def tensor_dtype(self) -> torch.dtype:
        return choose_dtype(self.dtype)

    @property
    def photograph_dtype(self) -> torch.dtype | None:
        """None for the fastest."""
        return None if self.dtype == "auto" else self.tensor_dtype


def taking(
    make: Callable[P, Made],
) -> Callable[[Callable[[Self, First, Made], Returned]], Callable[Concatenate[Self, First, P], Returned]]:
    """Let a method whose last argument is what ``make`` returns be called with the arguments of ``make`` instead.

    What it then takes is in its signature, for people and type checkers, and written down once.
    """

    def decorate(method: Callable[[Self, First, Made], Returned]) -> Callable[Concatenate[Self, First, P], Returned]:
        @functools.wraps(method)
        def call(self: Self, first: First, *args: P.args, **kwargs: P.kwargs) -> Returned:
            return method(self, first, make(*args, **kwargs))

        own = list(inspect.signature(method).parameters.values())[:-1]
        taken = [*own, *inspect.signature(make).parameters.values()]
        call.__signature__ = inspect.signature(method).replace(parameters=taken)  # type: ignore[attr-defined]
        return call

    return decorate
