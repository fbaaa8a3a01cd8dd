"""MaskGuidedSR: load a mask-guided network, choose K, run it on tensors and on photographs."""

from __future__ import annotations

import copy
import math
import os
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from . import images, plans, safety, stream
from .amount import Amount
from .arguments import WHOLE, check_out, check_tensor, check_whole, choose_device, choose_dtype
from .checkpoints import ModelConfig, load_checkpoint, load_model
from .choice import Choice
from .errors import InputError, OutOfMemoryError
from .explanation import Explanation
from .memory import parse_memory, require_memory
from .networks import VARIANTS, SRNetwork, WholeConfig, WholeNetwork
from .networks.layers import pad_by_reflection
from .pictures import ImageLike, Picture, like, read, shared

CPU_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory")  # the CPU allocator has no error of its own

PLANS_KEPT = 2  # image sizes whose buffers stay allocated

Result = TypeVar("Result")


class MaskGuidedSR:
    """A mask-guided SR network ready to run.

    K, the number of p x p cells refined per image, is ``k``, or ``fraction`` of the image's cells, or by default the
    paper's 16,000 / p^2 (K = 1000 at p = 4); it is never more than the number of cells.

    ``threshold`` refines, of these, only the cells whose mask value is larger; ``k`` may limit them. The mask predicts
    the error of a cell: 0 where refining changes nothing, 1 where it changes as much as at the worst twentieth of the
    training set's cells (see ``mga.train.objectives``); networks trained by others have scales of their own.

    ``max_ms``: as many as there is time for, so that a photograph takes no longer than these milliseconds on this
    machine, from bytes to bytes. That is measured once for each size, which takes some twenty times as long, and kept
    in a file (see ``mga_kernels.timings``). Tensors are refined with the same K. Where even K = 0 takes longer, it is
    used with a warning.

    ``memory``, bytes or a text such as "8GiB", is what upscaling a photograph may take in addition to the model, by
    default nine tenths of what is free. A larger image is cut into overlapping tiles, with the result of the whole
    image and one K for all of it (see ``mga_kernels.plans.tiles``); tensors are never cut.

    ``mode``: how photographs are run. "masked" is -M, "dense" -D (the Refine-Net over everything, so that K has no
    meaning), "auto" measures both once for each size, where K > 0, and runs the faster; ``info`` tells which. A whole
    network, which has no mask (``from_checkpoint``), only has "dense", which is its default; the others have "masked".
    """

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
        mode = mode or ("dense" if self.whole else "masked")
        self.amount, self.mode, self.runtime = Amount(k, fraction, threshold, max_ms), mode, runtime
        self.k, self.fraction = k, fraction
        self.memory = None if memory is None else parse_memory(memory)
        self.device, self.dtype = choose_device(device), choose_dtype(dtype)
        self.config: ModelConfig | WholeConfig = network.config
        self._plans: OrderedDict[tuple[int, int, int, bool], plans.Plan] = OrderedDict()
        self._planning = threading.Lock()  # a plan has one set of buffers: threads take turns
        self._refined: int | None = 0
        self._gave_up: dict[str, str] = {}
        self._watches_tensors = self.dtype == torch.float16  # the others have the range of float32
        network = network.eval().requires_grad_(False)
        # float16 cannot hold every weight, so what may be run instead is made from a copy.
        self._exact = network if self.dtype == torch.float32 else copy.deepcopy(network).cpu()
        self._load(network, None if dtype == "auto" else self.dtype)

    def _load(self, network: SRNetwork, dtype: torch.dtype | None) -> None:
        """Prepare the network for ``dtype``, None for the fastest one."""
        self._planner, refused = plans.prepare(network, self.device, dtype, self.runtime)
        self._runs_in: torch.dtype = getattr(self._planner, "narrow", self.dtype)  # photographs, that is
        self._refused = refused | self._gave_up
        self._plans.clear()
        self.model = network.to(self.device, self.dtype)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._budget = plans.Budget(self._planner, self.model, self.device, self.memory)
        engine = weakref.proxy(self)  # the plans of an engine go with it: they hold gigabytes
        self._choice = Choice(
            self.config,
            self.amount,
            self.mode,
            lambda *key: engine._make_plan(*key),
            lambda height, width: math.prod(engine.grid(height, width)),
            self._planner.description,
            self.device,
        )

    @classmethod
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
        """A shipped model ("rfdn-x4") or a file that training wrote.

        ``device``: "auto" is CUDA where there is one. ``dtype``: "auto" is float32 for tensors, and for photographs
        float16 on a GPU and bfloat16 where this CPU multiplies in it, as far as it costs less than 0.02 dB. Where a
        network gives values that float16 cannot hold, a warning says so and bfloat16 or float32 is used from then on.
        ``runtime``: what runs photographs: "own" (on a CPU convolutions of ours, on a GPU a CUDA graph), "openvino" or
        "pytorch"; "auto" is the first of them that can (see ``info``).
        Raises CheckpointError for a file that is missing, damaged or of another network, InputError for the other
        arguments.
        """
        model = load_model(name_or_path)
        amount = {"threshold": threshold, "max_ms": max_ms}
        return cls(model, k, fraction, device, dtype, **amount, mode=mode, runtime=runtime, memory=memory)

    @classmethod
    def from_checkpoint(
        cls,
        source: Any,
        *,
        colour: str | None = None,
        input_range: str | None = None,
        scale: int | None = None,
        expected_scale: int | None = None,
        **settings: Any,
    ) -> MaskGuidedSR:
        """Any file of weights: what ``from_pretrained`` takes, a published network, or the mask-guided authors' layout.

        A published network (.pth, .pt or .safetensors; docs/checkpoints.md) runs whole, as it is. Where its tensors do
        not tell what it works on, a CheckpointError says so and one of these decides: ``colour`` ("rgb", "ycbcr" or
        "y"), ``input_range`` ("0..1", "0..255", of luma "16..235", of YCbCr "clipped") and ``scale``. A scale that is
        still open is ``expected_scale`` or what the name of the file says, then with a CheckpointNote. ``settings`` are
        the arguments of the class. ``source`` may also be an ImageModelDescriptor, as spandrel loads it.
        """
        return cls(load_checkpoint(source, colour, input_range, scale, expected_scale), **settings)

    @property
    def network(self) -> str:
        return self.config.network

    @property
    def scale(self) -> int:
        return self.config.scale

    @property
    def patch_size(self) -> int:
        return self.config.patch_size

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of cells of an LR image of this size."""
        smallest, p = self.config.definition.minimum_size, self.patch_size
        return math.ceil(max(height, smallest) / p), math.ceil(max(width, smallest) / p)

    def resolve_k(self, height: int, width: int, k: int | None = None, fraction: float | None = None) -> int:
        """Cells refined in an LR image of this size; ``k`` or ``fraction`` override the model's own amount.

        With a threshold it is their largest number. With ``max_ms`` it may have to be measured.
        """
        amount = Amount(k, fraction)
        if amount:
            return amount.count(math.prod(self.grid(height, width)), self.config.k)
        return self._choice.k(height, width)

    def warmup(self, height: int, width: int) -> None:
        """Allocate what photographs of this size need, so that the first of them is as fast as those after it."""
        with self._planning:
            self._plan(height, width).warm(self._choice.dense(height, width))

    def info(self) -> dict[str, str | list[str]]:
        """How photographs are run, why not in another way, and what was chosen for the sizes that are prepared."""
        return {
            "photographs": self._planner.description,
            "mode": self.mode,
            "why not": [f"{name}: {reason}" for name, reason in self._refused.items()],
            "prepared": [
                ", ".join(filter(None, (f"{width}x{height}", self._choice.why(height, width), plan.parts)))
                for (height, width, _, _), plan in self._plans.items()
            ],
        }

    @property
    def refined(self) -> int | None:
        """Cells refined in the photograph that was upscaled last; None where the dense network made it."""
        return self._refined

    def _plan(self, height: int, width: int) -> plans.Plan:
        """The plan for an LR image of this size with the model's K; those used last are kept."""
        key = self._key(height, width)
        if key not in self._plans:
            while self._plans and (len(self._plans) >= PLANS_KEPT or not self._budget.fits(*key, self._held())):
                self._plans.popitem(last=False)
            self._plans[key] = self._make_plan(*key)
            self._plans[key].threshold = self.amount.threshold
        self._plans.move_to_end(key)
        return self._plans[key]

    def _key(self, height: int, width: int) -> tuple[int, int, int, bool]:
        """What the plan for an LR image of this size depends on: the size, K, and whether it runs -D."""
        dense = self._choice.dense(height, width)
        return height, width, 0 if dense else self.resolve_k(height, width), dense

    def _make_plan(self, height: int, width: int, k: int, dense: bool) -> plans.Plan:
        return self._budget.plan(height, width, k, dense, self._held(), self._what((1, 3, height, width))[0])

    def _held(self) -> int:
        """Bytes of the plans that are kept."""
        return sum(plan.bytes for plan in self._plans.values())

    @contextmanager
    def _planned(self, photo: images.Photo) -> Iterator[plans.Plan]:
        """The plan for a photograph, which nobody else uses meanwhile."""
        height, width = photo.rgb.shape[:2]
        with self._planning, self._memory_errors(1, height, width):
            yield self._plan(height, width)

    def _run(self, photo: images.Photo, steps: Callable[[plans.Plan, bool], Result]) -> Result:
        """``steps(plan, dense)``; again in smaller tiles where memory ran out, wider where values were not finite."""
        size = photo.rgb.shape[:2]
        while True:
            try:
                with self._planned(photo) as plan:
                    dtype, dense = self._runs_in, self._choice.dense(*size)
                    plan.start()
                    result = steps(plan, dense)
                    if plan.finite is None or bool(plan.finite):
                        self._refined = None if dense else plan.chosen()
                        return result
            except OutOfMemoryError:
                if not self._shrink(*size):
                    raise
            else:
                self._widen(dtype)

    def _shrink(self, height: int, width: int) -> bool:
        with self._planning:
            self._plans.clear()
            return self._budget.shrink(*self._key(height, width))

    def _widen(self, dtype: torch.dtype) -> None:
        """Run in a wider dtype than this one from now on."""
        instead = safety.wider(dtype, self.device)
        with self._planning:
            if dtype not in (self.dtype, self._runs_in):  # another thread was here before
                return
            message = safety.explain_widening(dtype, instead)
            warnings.warn(message, stacklevel=4)
            self._gave_up[str(dtype).removeprefix("torch.")] = "gave values that are not finite"
            self.dtype = instead if self.dtype == dtype else self.dtype
            self._load(copy.deepcopy(self._exact), instead)

    @torch.inference_mode()
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
        height, width = image.shape[-2:]
        threshold = self.amount.threshold if k is fraction is None else None
        k = self.resolve_k(height, width, k, fraction)
        while True:
            model = self.model  # which another thread may widen meanwhile
            dtype = next(model.parameters()).dtype
            with self._memory_guard(image.shape):
                result = model.unclamped(self._prepare(image, dtype), k, variant, selection, seed, threshold)
            if not self._watches_tensors or safety.is_finite(result):
                break
            self._widen(dtype)
        return result.clamp(0, 1)[..., : height * self.scale, : width * self.scale].to(image.dtype)

    def upscale(self, image: ImageLike, out: np.ndarray | None = None) -> Picture:
        """Upscale one photograph with the model's own K.

        A path or a PIL image gives a PIL image, a uint8 array an array of the same layout, a Photo a Photo.
        Orientation, alpha, grey levels, colour profile and metadata are kept (see ``mga_kernels.images``); what cannot
        be kept is said in a warning, or in the ``notes`` of a Photo. ``out``, uint8 (sH, sW, 3), takes the result of
        an RGB array and is returned.
        """
        photo = read(image)
        room = check_out(image, out, *(side * self.scale for side in photo.rgb.shape[:2]))
        rgb = shared(photo.rgb)
        result = self._run(photo, lambda plan, dense: (plan.dense if dense else plan.run)(rgb, out=room)).numpy()
        return out if out is not None else like(image, photo.upscaled(result))

    def upscale_all(
        self,
        sources: Iterable[ImageLike],
        ahead: int = 2,
        save: Callable[[stream.Upscaled], object] | None = None,
        savers: int = 1,
    ) -> Generator[stream.Upscaled, None, None]:
        """``upscale`` image after image, with reading and saving beside it: see ``mga_kernels.stream.upscale_all``."""
        return stream.upscale_all(self, sources, ahead, save, savers)

    @torch.inference_mode()
    def explain(self, image: ImageLike) -> Explanation:
        """Upscale one photograph and return what was predicted, selected and refined on the way."""
        if self.whole:
            raise InputError("explain: a whole network has no mask, so there is nothing to explain; use upscale")
        timings: dict[str, float] = {}
        with self._stage("read", timings):
            photo = read(image)
        results, mask, indices = self._run(photo, lambda plan, dense: self._steps(plan, dense, photo, timings))
        with self._stage("write", timings):
            pictures = [like(image, photo.upscaled(np.ascontiguousarray(result.numpy()))) for result in results]
        return Explanation(pictures[0], mask, indices, pictures[1], self.patch_size, self.scale, timings)

    def _steps(
        self, plan: plans.Plan, dense: bool, photo: images.Photo, timings: dict[str, float]
    ) -> tuple[tuple[Tensor, Tensor], np.ndarray, np.ndarray]:
        """Coarse and final image, mask and indices, made in steps whose times are taken."""
        with self._stage("base", timings):
            final = plan.buffer()
            plan.coarse(shared(photo.rgb), final)
        coarse = plan.crop(final).cpu().clone()
        with self._stage("mask", timings):
            mask, indices = plan.choose(plan.capacity)
        with self._stage("refine", timings):
            if dense:
                plan.decomposed(final)
                indices = torch.arange(mask.numel(), dtype=torch.int32)[None]
            elif indices.shape[1]:
                plan.refine(indices, final)
        return (coarse, plan.crop(final).cpu()), mask[0].float().cpu().numpy(), indices[indices >= 0].cpu().numpy()

    def _prepare(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """Move, convert, and extend an image that is too small for the network by reflection."""
        smallest = self.config.definition.minimum_size
        image = pad_by_reflection(image.to(self.device, dtype), *(max(s, smallest) for s in image.shape[-2:]))
        return image.contiguous(memory_format=torch.channels_last)

    def _what(self, shape: Sequence[int]) -> tuple[str, str]:
        """What is being done, and what to do where memory is too small for it."""
        batch, _, height, width = shape
        what = f"upscaling {batch} image(s) of {width}x{height} to {width * self.scale}x{height * self.scale}"
        return what, "use a smaller image or cut it into parts"

    @contextmanager
    def _memory_guard(self, shape: Sequence[int]) -> Iterator[None]:
        """Refuse a batch that cannot fit before starting, and translate the allocator's own error."""
        batch, _, height, width = shape
        if self.device.type == "cpu":
            pixels = batch * math.prod(self.grid(height, width)) * self.patch_size**2
            needed = pixels * self.config.definition.working_values * self.dtype.itemsize
            require_memory(needed, *self._what(shape))
        with self._memory_errors(batch, height, width):
            yield

    @contextmanager
    def _memory_errors(self, batch: int, height: int, width: int) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in CPU_OUT_OF_MEMORY):
                what, remedy = self._what((batch, 3, height, width))
                raise OutOfMemoryError(f"{what} needs more memory than {self.device} has; {remedy}") from None
            raise

    @contextmanager
    def _stage(self, name: str, timings: dict[str, float]) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        timings[name] = time.perf_counter() - started
