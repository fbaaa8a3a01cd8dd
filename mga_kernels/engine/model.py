"""MaskGuidedSR: load a mask-guided network, choose K, run it on tensors and on photographs."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, Literal, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import ModelConfig, load_between, load_checkpoint, load_native
from ..errors import InputError, OutOfMemoryError
from ..modes import ordinary
from ..networks import VARIANTS, SRNetwork, WholeConfig, WholeNetwork
from ..networks.amount import Amount
from ..networks.copies import from_bytes, private_copy, to_bytes
from ..networks.layers import pad_by_reflection
from ..networks.tiny import Border
from ..notices import warn
from ..quantities import check_whole_number
from ..runtimes import Plan, finite
from ..system.memory import bare, parse_memory
from ..system.threads import Lock
from . import batch
from .arguments import WHOLE, check_out, check_size, check_tensor, check_whole, choose_device, choose_dtype
from .explanation import Explanation, Timings, steps
from .pictures import ImageLike, Picture, in_form_of, like, read, shared
from .result import Result
from .runner import Runner

VOLATILE = ("_lock", "_last", "_runner")  # what a copy in another process or beside this one makes anew

Value = TypeVar("Value")


class MaskGuidedSR:
    """A mask-guided SR network ready to run.

    K, the number of p x p cells refined per image, is ``k``, or ``fraction`` of the image's cells, or by default the
    paper's 16,000 / p^2 (K = 1000 at p = 4); it is never more than the number of cells.

    ``threshold`` refines, of these, only the cells whose mask value is larger; ``k`` may limit them. The mask predicts
    the error of a cell: 0 where refining changes nothing, 1 where it changes as much as at the worst twentieth of the
    training set's cells (see ``mga.training.objectives``); networks trained by others have scales of their own.

    ``max_ms``: as many as there is time for, so that a photograph takes no longer than these milliseconds on this
    machine, from bytes to bytes. That is measured once for each size, which takes some twenty times as long, and kept
    in a file (see ``mga_kernels.engine.timings``). Tensors are refined with the same K. Where even K = 0 takes longer,
    it is used with a warning.

    ``memory``, bytes or a text such as "8GiB", is what upscaling a photograph may take in addition to the model, by
    default nine tenths of what is free. A larger image is cut into overlapping tiles, with the result of the whole
    image and one K for all of it (see ``mga_kernels.runtimes.tiles.tiled``); tensors are never cut.

    ``mode``: how photographs are run. "masked" is -M, "dense" -D (the Refine-Net over everything, so that K has no
    meaning), "auto" measures both once for each size, where K > 0, and runs the faster; ``info`` tells which. A whole
    network, which has no mask (``from_checkpoint``), only has "dense", which is its default; the others have "masked".
    """

    @ordinary()
    def __init__(
        self,
        network: SRNetwork,
        k: int | None = None,
        fraction: float | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        *,
        threshold: float | None = None,
        max_ms: float | None = None,
        mode: str | None = None,
        runtime: str = "auto",
        memory: int | str | None = None,
    ):
        self.whole = isinstance(network, WholeNetwork)
        if self.whole:
            other = None if mode == "dense" else mode
            check_whole(k=k, fraction=fraction, threshold=threshold, max_ms=max_ms, mode=other)
        self.mode, self.runtime = mode or ("dense" if self.whole else "masked"), runtime
        self.amount = Amount(k, fraction, threshold, max_ms)
        self.k, self.fraction = self.amount.k, self.amount.fraction
        self.memory = None if memory is None else parse_memory(memory)
        self.config: ModelConfig | WholeConfig = network.config
        self._asked, self.dtype = str(device), choose_dtype(dtype)
        self._wanted = None if dtype == "auto" else self.dtype  # by photographs; None for the fastest
        self._gave_up: dict[str, str] = {}
        self._watches_tensors = self.dtype == torch.float16  # the others have the range of float32
        # float16 cannot hold every weight, so what may be run instead is made from these. They never change.
        self._exact = private_copy(network).cpu().eval().requires_grad_(False)
        self._start()

    def _start(self) -> None:
        """Make what ``VOLATILE`` names."""
        self.device = choose_device(self._asked)
        self._lock = Lock()  # a plan has one set of buffers: threads take turns
        self._last = threading.local()
        self._runner = self._run_in(self.dtype, self._wanted)

    def _run_in(self, dtype: torch.dtype, wanted: torch.dtype | None) -> Runner:
        """What runs tensors in ``dtype`` and photographs in ``wanted``."""
        network = self._exact if dtype == torch.float32 and self.device.type == "cpu" else copy.deepcopy(self._exact)
        amount, mode, memory = self.amount, self.mode, self.memory
        runner = Runner(network, self.device, dtype, wanted, self.runtime, amount, mode, memory, self._lock)
        runner.refused |= self._gave_up
        return runner

    @ordinary()
    def __deepcopy__(self, memo: dict[int, Any]) -> MaskGuidedSR:
        """Shares nothing with this model; plans are made anew."""
        made = memo[id(self)] = object.__new__(type(self))
        kept = {name: value for name, value in vars(self).items() if name not in (*VOLATILE, "_exact")}
        made.__dict__.update(copy.deepcopy(kept, memo), _exact=private_copy(self._exact))
        made._start()
        return made

    def __copy__(self) -> MaskGuidedSR:
        return copy.deepcopy(self)

    @ordinary()
    def __getstate__(self) -> dict[str, Any]:
        """For pickle: settings and weights. InputError for a network that holds what cannot be pickled."""
        kept = {name: value for name, value in vars(self).items() if name not in VOLATILE}
        return kept | {"_exact": to_bytes(self._exact)}

    @ordinary()
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _exact=from_bytes(state["_exact"]))
        self._start()

    @classmethod
    @ordinary()
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        k: int | None = None,
        fraction: float | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        *,
        threshold: float | None = None,
        max_ms: float | None = None,
        mode: str | None = None,
        runtime: str = "auto",
        memory: int | str | None = None,
    ) -> MaskGuidedSR:
        """A shipped model ("rfdn-x4", "span-x4") or a file that training wrote.

        ``device``: "auto" is CUDA where there is one. ``dtype``: "auto" is float32 for tensors, and for photographs
        float16 on a GPU and bfloat16 where this CPU multiplies in it, as far as it costs less than 0.02 dB. Where a
        network gives values that float16 cannot hold, a warning says so and bfloat16 or float32 is used from then on.
        ``runtime``: what runs photographs: "own" (on a CPU convolutions of ours, on a GPU a CUDA graph), "openvino" or
        "pytorch"; "auto" is the first of them that can (see ``info``).
        Raises CheckpointError for a file that is missing, damaged or of another network, InputError for the other
        arguments.
        """
        model = load_native(name_or_path)
        amount = {"threshold": threshold, "max_ms": max_ms}
        return cls(model, k, fraction, device, dtype, **amount, mode=mode, runtime=runtime, memory=memory)

    @classmethod
    @ordinary()
    def from_checkpoint(
        cls,
        source: Any,
        *,
        colour: str | None = None,
        input_range: str | None = None,
        scale: int | None = None,
        expected_scale: int | None = None,
        denoise: float | None = None,
        denoise_source: str | os.PathLike | None = None,
        **settings: Any,
    ) -> MaskGuidedSR:
        """Any file of weights: what ``from_pretrained`` takes, a published network, or the mask-guided authors' layout.

        A published network (.pth, .pt or .safetensors, or ncnn's .param; docs/checkpoints.md) runs whole, as it is.
        Where its tensors do not tell what it works on, a CheckpointError says so and one of these decides: ``colour``
        ("rgb", "ycbcr" or "y"), ``input_range`` ("0..1", "0..255", of luma "16..235", of YCbCr "clipped") and
        ``scale``. A scale that is still open is ``expected_scale`` or what the name of the file says, then with a
        CheckpointNote. ``denoise``, 0 to 1, mixes the weights with those of ``denoise_source``, which denoises least,
        by default the wdn file beside Real-ESRGAN's general one; 1 is the file as it is. ``settings`` are the arguments
        of the class. ``source`` may also be an ImageModelDescriptor, as spandrel loads it.
        """
        decided: dict[str, Any] = {"colour": colour, "input_range": input_range, "scale": scale}
        decided["expected_scale"] = expected_scale
        if denoise is None and denoise_source is None:
            return cls(load_checkpoint(source, **decided), **settings)
        if denoise is None:
            raise InputError("MaskGuidedSR: denoise_source is there to be mixed; give denoise, from 0 to 1, too")
        return cls(load_between(source, denoise, denoise_source, **decided), **settings)

    @property
    def network(self) -> str:
        return self.config.network

    @property
    def scale(self) -> int:
        return self.config.scale

    @property
    def patch_size(self) -> int:
        return self.config.patch_size

    @property
    def model(self) -> SRNetwork:
        """The network as it runs tensors: a copy of the one that was given."""
        return self._runner.model

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of cells of an LR image of this size."""
        return self._runner.grid(*check_size(height, width))

    @ordinary()
    def resolve_k(self, height: int, width: int, k: int | None = None, fraction: float | None = None) -> int:
        """Cells refined in an LR image of this size; ``k`` or ``fraction`` override the model's own amount.

        With a threshold it is their largest number. With ``max_ms`` it may have to be measured.
        """
        height, width = check_size(height, width)
        amount, runner = Amount(k, fraction), self._runner
        if amount:
            rows, columns = runner.grid(height, width)
            return amount.count(rows * columns, self.config.k)
        return runner.choice.k(height, width)

    @ordinary()
    def warmup(self, height: int, width: int) -> None:
        """Allocate what photographs of this size need, so that the first of them is as fast as those after it."""
        size = check_size(height, width)
        with self._lock:
            runner = self._runner
            with runner.memory_errors(*size):
                runner.plan(*size).warm(runner.choice.dense(*size))

    @ordinary()
    def info(self) -> dict[str, str | list[str]]:
        """How photographs are run, why not in another way, and what was chosen for the sizes that are prepared."""
        runner = self._runner
        return {
            "photographs": runner.description,
            "mode": self.mode,
            "why not": [f"{name}: {reason}" for name, reason in runner.refused.items()],
            "prepared": runner.prepared(),
        }

    @property
    def refined(self) -> int | None:
        """Cells refined in the photograph that this thread upscaled last; None where the dense network made it.

        ``upscale(image, return_result=True)`` returns the number with the picture.
        """
        return getattr(self._last, "refined", 0)

    def _run(self, size: tuple[int, int], steps: Callable[[Plan, bool], Value]) -> tuple[Value, int | None]:
        """``steps(plan, dense)`` and the cells refined, of a photograph of this height and width.

        Again in smaller tiles where memory ran out, and in a wider dtype where values were not finite.
        """
        while True:
            try:
                runner, value, refined = self._run_once(size, steps)
            except OutOfMemoryError as problem:
                error = bare(problem)
            else:
                if value is not None:
                    self._last.refined = refined
                    return value, refined
                self._widen(runner, runner.narrow)
                continue
            with self._lock:
                if not self._runner.shrink(*size):
                    raise error

    def _run_once(
        self, size: tuple[int, int], steps: Callable[[Plan, bool], Value]
    ) -> tuple[Runner, Value | None, int | None]:
        """What ran it, and None for a value that was not finite."""
        with self._lock:
            runner = self._runner
            with runner.memory_errors(*size):
                plan, dense = runner.plan(*size), runner.choice.dense(*size)
                plan.start()
                value = steps(plan, dense)
                if plan.finite is not None and not bool(plan.finite):
                    return runner, None, None
                return runner, value, None if dense else plan.chosen()

    def _widen(self, runner: Runner, dtype: torch.dtype) -> None:
        """Run in a wider dtype than this one, in which values of ``runner`` were not finite, from now on."""
        instead = finite.wider(dtype, self.device)
        with self._lock:
            if self._runner is not runner:  # another thread was here before
                return
            gave_up = {str(dtype).removeprefix("torch."): "gave values that are not finite"}
            self._gave_up, before = self._gave_up | gave_up, self._gave_up
            try:
                self._runner = self._run_in(instead if self.dtype == dtype else self.dtype, instead)
            except BaseException:
                self._gave_up = before
                raise
            self.dtype, self._wanted = self._runner.dtype, instead
        warn(finite.explain_widening(dtype, instead))

    @ordinary()
    def __call__(
        self,
        image: Tensor,
        variant: str | None = None,
        k: int | None = None,
        fraction: float | None = None,
        selection: str | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Upscale a float tensor (B, 3, H, W) in [0, 1], any H and W, to (B, 3, sH, sW) in [0, 1], same dtype.

        ``variant``: "masked" (-M, the default), "base" (-B), "all" (-A) or "decomposed" (-D); "whole" for a network
        without a mask, for which all that follows has no meaning. ``selection``: the cells with the
        "largest" or "smallest" mask values, or "random" ones drawn by ``seed``; by default as the model's configuration
        says, which is "largest" unless it was trained for something else. The result is on the model's device.
        Raises InputError for a wrong shape, type or value (NaN, outside [0, 1]), OutOfMemoryError for too big an image.

        In float16 it waits for the device, to see whether all values are finite (see ``from_pretrained``).
        """
        variant = variant or (WHOLE if self.whole else "masked")
        check_tensor(image, variant, selection)
        if self.whole:
            check_whole(variant=None if variant == WHOLE else variant, k=k, fraction=fraction, selection=selection)
        elif variant == WHOLE:
            raise InputError(f"MaskGuidedSR: {self.network} is divided; choose one of {', '.join(VARIANTS)}")
        border, image = Border.around(image, -2, -1, self.patch_size)
        height, width = image.shape[-2:]
        threshold = self.amount.threshold if k is fraction is None else None
        seed = check_whole_number("MaskGuidedSR: seed decides which cells are drawn", seed, 0)
        k = self.resolve_k(height, width, k, fraction)
        while True:
            runner = self._runner  # which another thread may replace meanwhile
            with runner.memory_guard(image.shape):
                given = self._prepare(image, runner.dtype)
                result = runner.model.unclamped(given, k, variant, selection, seed, threshold)
            if not self._watches_tensors or finite.is_finite(result):
                break
            self._widen(runner, runner.dtype)
        result = result[..., : height * self.scale, : width * self.scale].clamp(0, 1).to(image.dtype)
        return border.cut(result, -2, -1, self.scale)

    @overload
    def upscale(
        self, image: ImageLike, out: np.ndarray | None = None, *, return_result: Literal[False] = False
    ) -> Picture: ...

    @overload
    def upscale(self, image: ImageLike, out: np.ndarray | None = None, *, return_result: Literal[True]) -> Result: ...

    @ordinary()
    def upscale(
        self, image: ImageLike, out: np.ndarray | None = None, *, return_result: bool = False
    ) -> Picture | Result:
        """Upscale one photograph with the model's own K.

        A path or a PIL image gives a PIL image, a uint8 array an array of the same layout, a Photo a Photo.
        Orientation, alpha, grey levels, colour profile and metadata are kept (see ``mga_kernels.images``); what cannot
        be kept is said in a warning, or in the ``notes`` of a Photo. ``out``, uint8 (sH, sW, 3), takes the result of
        an RGB array and is returned. ``return_result``: a Result instead, whose notes are no warnings.
        """
        photo = read(image)
        room = check_out(image, out, *(side * self.scale for side in photo.rgb.shape[:2]))
        border, rgb = Border.around(shared(photo.rgb), 0, 1, self.patch_size)
        size, direct = (rgb.shape[0], rgb.shape[1]), None if any(border) else room
        pixels, refined = self._run(size, lambda plan, dense: (plan.dense if dense else plan.run)(rgb, out=direct))
        made = photo.upscaled(border.cut(pixels, 0, 1, self.scale, room).numpy())
        if not return_result:
            return out if out is not None else like(image, made)
        return Result(in_form_of(image, made) if out is None else out, refined, list(made.notes))

    def upscale_all(
        self,
        sources: Iterable[ImageLike],
        ahead: int = 2,
        save: Callable[[batch.Upscaled], object] | None = None,
        savers: int = 1,
    ) -> Generator[batch.Upscaled, None, None]:
        """``upscale`` image after image, with reading and saving beside it: see ``engine.batch.upscale_all``."""
        return batch.upscale_all(self, sources, ahead, save, savers)

    @ordinary()
    def explain(self, image: ImageLike) -> Explanation:
        """Upscale one photograph and return what was predicted, selected and refined on the way."""
        if self.whole:
            raise InputError("explain: a whole network has no mask, so there is nothing to explain; use upscale")
        timings = Timings(self.device)
        with timings.of("read"):
            photo = read(image)
        border, rgb = Border.around(shared(photo.rgb), 0, 1, self.patch_size)
        (results, mask, indices), _ = self._run(
            (rgb.shape[0], rgb.shape[1]), lambda plan, dense: steps(plan, dense, rgb, timings)
        )
        mask, indices = border.own_cells(mask, indices, self.patch_size)
        with timings.of("write"):
            parts = (border.cut(result, 0, 1, self.scale).contiguous().numpy() for result in results)
            coarse, made = map(photo.upscaled, parts)
            pictures = in_form_of(image, coarse), like(image, made)  # the notes are the same
        return Explanation(pictures[0], mask, indices, pictures[1], self.patch_size, self.scale, timings.seconds)

    def _prepare(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """Move, convert, and extend an image that is too small for the network by reflection."""
        smallest = self.config.definition.minimum_size
        image = pad_by_reflection(image.to(self.device, dtype), *(max(s, smallest) for s in image.shape[-2:]))
        return image.contiguous(memory_format=torch.channels_last)
