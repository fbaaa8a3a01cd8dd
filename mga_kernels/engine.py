"""MaskGuidedSR: load a mask-guided network, choose K, run it on tensors and on photographs."""

from __future__ import annotations

import math
import os
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import images, plans
from .checkpoints import ModelConfig, load_model
from .errors import InputError, OutOfMemoryError
from .memory import parse_memory, require_memory
from .networks import VARIANTS, MaskGuidedNetwork
from .networks.layers import pad_by_reflection
from .ops import image_to_input, output_to_image
from .ops.select_patches import ORDERS

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CPU_OUT_OF_MEMORY = ("not enough memory", "can't allocate memory")  # the CPU allocator has no error of its own

PLANS_KEPT = 2  # image sizes whose buffers stay allocated

ImageLike = str | os.PathLike | Image.Image | np.ndarray | images.Photo
Picture = Image.Image | np.ndarray | images.Photo
Result = TypeVar("Result")


@dataclass(frozen=True)
class Explanation:
    """What happened to one image.

    ``coarse`` and ``image`` are of the kind that ``upscale`` returns. ``mask`` float32 (Hp, Wp) and ``indices`` int32
    (K,), raster order: cell i covers p x p LR pixels from row i // Wp * p and column i % Wp * p, with p =
    ``patch_size``. ``timings`` are seconds by stage.
    """

    coarse: Picture
    mask: np.ndarray
    indices: np.ndarray
    image: Picture
    patch_size: int
    scale: int
    timings: dict[str, float]


def _check_share(k: int | None, fraction: float | None) -> None:
    if k is not None and fraction is not None:
        raise InputError("K: give either k or fraction, not both")
    if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 0):
        raise InputError(f"K: k is the number of patches to refine, a whole number of 0 or more; got {k!r}")
    if fraction is not None and not (isinstance(fraction, (int, float)) and 0 <= fraction <= 1):
        raise InputError(f"K: fraction is the share of cells to refine, between 0 and 1; got {fraction!r}")


def _choose_device(device: str | torch.device) -> torch.device:
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return chosen


def _choose_dtype(dtype: str | torch.dtype) -> torch.dtype:
    if dtype == "auto":
        return torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not supported; choose auto or one of {', '.join(DTYPES)}")
    return DTYPES[name]


class MaskGuidedSR:
    """A mask-guided SR network ready to run.

    K, the number of p x p patches refined per image, is ``k``, or ``fraction`` of the image's cells, or by default the
    paper's 16,000 / p^2 (K = 1000 at p = 4); it is never more than the number of cells.

    ``memory``, bytes or a text such as "8GiB", is what upscaling a photograph may take in addition to the model, by
    default nine tenths of what is free. A larger image is cut into overlapping tiles, with the result of the whole
    image and one K for all of it (see ``mga_kernels.plans.tiles``); tensors are never cut.
    """

    def __init__(
        self,
        network: MaskGuidedNetwork,
        k: int | None = None,
        fraction: float | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        *,
        memory: int | str | None = None,
    ):
        _check_share(k, fraction)
        self.device, self.dtype = _choose_device(device), _choose_dtype(dtype)
        self.config: ModelConfig = network.config
        network = network.eval().requires_grad_(False)
        self._planner, self._refused = plans.prepare(network, self.device, None if dtype == "auto" else self.dtype)
        self._plans: OrderedDict[tuple[int, int, int], plans.Plan] = OrderedDict()
        self._planning = threading.Lock()  # a plan has one set of buffers: threads take turns
        self.model = network.to(self.device, self.dtype)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._budget = plans.Budget(
            self._planner, self.model, self.device, None if memory is None else parse_memory(memory)
        )
        self.k, self.fraction = k, fraction

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        k: int | None = None,
        fraction: float | None = None,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        *,
        memory: int | str | None = None,
    ) -> MaskGuidedSR:
        """A shipped model ("rfdn-x4") or a file that training wrote.

        ``device``: "auto" is CUDA where there is one. ``dtype``: "auto" is float32 for tensors, and for photographs
        bfloat16 with float32 sums where this CPU and network have a plan for it (see ``info``), which costs less than
        0.01 dB. Raises CheckpointError for a file that is missing, damaged or of another network, InputError for the
        other arguments.
        """
        return cls(load_model(name_or_path), k, fraction, device, dtype, memory=memory)

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
        """Patches refined in an LR image of this size; ``k`` or ``fraction`` override the model's own."""
        _check_share(k, fraction)
        if k is None and fraction is None:
            k, fraction = self.k, self.fraction
        cells = math.prod(self.grid(height, width))
        if fraction is not None:
            return round(fraction * cells)
        return min(self.config.k if k is None else k, cells)

    def warmup(self, height: int, width: int) -> None:
        """Allocate what photographs of this size need, so that the first of them is as fast as those after it."""
        with self._planning:
            self._plan(height, width)

    def info(self) -> dict[str, str | list[str]]:
        """How photographs are run, why not in another way, and the image sizes that are prepared."""
        return {
            "photographs": self._planner.description,
            "why not": [f"{name}: {reason}" for name, reason in self._refused.items()],
            "prepared": [
                f"{width}x{height}, K = {k}" + (f", {plan.parts}" if plan.parts else "")
                for (height, width, k), plan in self._plans.items()
            ],
        }

    def _plan(self, height: int, width: int) -> plans.Plan:
        """The plan for an LR image of this size with the model's K; those used last are kept."""
        key = height, width, self.resolve_k(height, width)
        if key not in self._plans:
            while self._plans and (len(self._plans) >= PLANS_KEPT or not self._budget.fits(*key, self._held())):
                self._plans.popitem(last=False)
            self._plans[key] = self._budget.plan(*key, self._held(), self._what((1, 3, height, width))[0])
        self._plans.move_to_end(key)
        return self._plans[key]

    def _held(self) -> int:
        """Bytes of the plans that are kept."""
        return sum(plan.bytes for plan in self._plans.values())

    @contextmanager
    def _planned(self, photo: images.Photo) -> Iterator[plans.Plan]:
        """The plan for a photograph, which nobody else uses meanwhile."""
        height, width = photo.rgb.shape[:2]
        with self._planning, self._memory_errors(1, height, width):
            yield self._plan(height, width)

    def _run(self, photo: images.Photo, steps: Callable[[plans.Plan], Result]) -> Result:
        """``steps`` with the plan of the photograph, in smaller tiles where memory runs out."""
        while True:
            try:
                with self._planned(photo) as plan:
                    return steps(plan)
            except OutOfMemoryError:
                if not self._shrink(*photo.rgb.shape[:2]):
                    raise

    def _shrink(self, height: int, width: int) -> bool:
        with self._planning:
            self._plans.clear()
            return self._budget.shrink(height, width, self.resolve_k(height, width))

    @torch.inference_mode()
    def __call__(
        self,
        image: Tensor,
        variant: str = "masked",
        k: int | None = None,
        fraction: float | None = None,
        selection: str | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Upscale a float tensor (B, 3, H, W) in [0, 1], any H and W, to (B, 3, sH, sW) in [0, 1], same dtype.

        ``variant``: "masked" (-M), "base" (-B), "all" (-A) or "decomposed" (-D). ``selection``: the cells with the
        "largest" or "smallest" mask values, or "random" ones drawn by ``seed``; by default as the model's configuration
        says, which is "largest" unless it was trained for something else. The result is on the model's device.
        Raises InputError for a wrong shape, type or value (NaN, outside [0, 1]), OutOfMemoryError for too big an image.
        """
        self._check(image, variant, selection)
        height, width = image.shape[-2:]
        k = self.resolve_k(height, width, k, fraction)
        with self._memory_guard(image.shape):
            result = self.model(self._prepare(image), k, variant, selection, seed)
        return result[..., : height * self.scale, : width * self.scale].to(image.dtype)

    def upscale(self, image: ImageLike, out: np.ndarray | None = None) -> Picture:
        """Upscale one photograph with the model's own K.

        A path or a PIL image gives a PIL image, a uint8 array an array of the same layout, a Photo a Photo.
        Orientation, alpha, grey levels, colour profile and metadata are kept (see ``mga_kernels.images``); what cannot
        be kept is said in a warning, or in the ``notes`` of a Photo. ``out``, uint8 (sH, sW, 3), takes the result of
        an RGB array and is returned.
        """
        photo = _read(image)
        room = self._room(image, photo, out)
        rgb = _shared(photo.rgb)
        result = self._run(photo, lambda plan: plan.run(rgb, out=room)).numpy()
        return out if out is not None else _like(image, photo.upscaled(result))

    @torch.inference_mode()
    def explain(self, image: ImageLike) -> Explanation:
        """Upscale one photograph and return what was predicted, selected and refined on the way."""
        timings: dict[str, float] = {}
        with self._stage("read", timings):
            photo = _read(image)
        results, mask, indices = self._run(photo, lambda plan: self._steps(plan, photo, timings))
        with self._stage("write", timings):
            pictures = [_like(image, photo.upscaled(np.ascontiguousarray(result.numpy()))) for result in results]
        return Explanation(pictures[0], mask, indices, pictures[1], self.patch_size, self.scale, timings)

    def _steps(
        self, plan: plans.Plan, photo: images.Photo, timings: dict[str, float]
    ) -> tuple[tuple[Tensor, Tensor], np.ndarray, np.ndarray]:
        """Coarse and final image, mask and indices, made in steps whose times are taken."""
        with self._stage("base", timings):
            final = plan.buffer()
            plan.coarse(_shared(photo.rgb), final)
        coarse = plan.crop(final).cpu().clone()
        with self._stage("mask", timings):
            mask, indices = plan.select(plan.capacity)
        with self._stage("refine", timings):
            if indices.shape[1]:
                plan.refine(indices, final)
        return (coarse, plan.crop(final).cpu()), mask[0].float().cpu().numpy(), indices[0].cpu().numpy()

    def _room(self, image: ImageLike, photo: images.Photo, out: np.ndarray | None) -> Tensor | None:
        """``out`` as a tensor; InputError where it is not what ``upscale`` can fill."""
        if out is None:
            return None
        if not (isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3):
            raise InputError("upscale: out= takes the result of a uint8 array (H, W, 3) only; leave it out")
        expected = (*(side * self.scale for side in photo.rgb.shape[:2]), 3)
        if not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.shape != expected:
            given = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise InputError(f"upscale: out must be a uint8 array {expected}, got {given}")
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise InputError("upscale: out must be contiguous and writeable")
        return torch.from_numpy(out)

    def _check(self, image: Tensor, variant: str, selection: str | None) -> None:
        if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            given = f"{tuple(image.shape)} {image.dtype}" if isinstance(image, Tensor) else type(image).__name__
            raise InputError(
                f"MaskGuidedSR: expected a float tensor (B, 3, H, W) with values in [0, 1], got {given}; "
                "for photographs use .upscale()"
            )
        if 0 in image.shape:
            raise InputError(f"MaskGuidedSR: the tensor is empty: {tuple(image.shape)}")
        low, high = torch.aminmax(image)
        if not (low >= 0 and high <= 1):  # false for NaN too
            raise InputError(
                f"MaskGuidedSR: values must be numbers in [0, 1], got {float(low):g} to {float(high):g}; "
                "divide 8-bit values by 255 and remove NaN"
            )
        for name, value, allowed in (("variant", variant, VARIANTS), ("selection", selection, ORDERS)):
            if value not in allowed and not (name == "selection" and value is None):
                raise InputError(f"MaskGuidedSR: {name} {value!r} does not exist; choose one of {', '.join(allowed)}")

    def _prepare(self, image: Tensor) -> Tensor:
        """Move, convert, and extend an image that is too small for the network by reflection."""
        smallest = self.config.definition.minimum_size
        image = pad_by_reflection(image.to(self.device, self.dtype), *(max(s, smallest) for s in image.shape[-2:]))
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


def _read(image: ImageLike) -> images.Photo:
    return image if isinstance(image, images.Photo) else images.read_image(image)


def _like(source: ImageLike, photo: images.Photo) -> Picture:
    """The photograph in the form of what it was read from."""
    if isinstance(source, images.Photo):
        return photo
    for note in photo.notes:
        warnings.warn(note, stacklevel=3)
    return images.to_array(photo) if isinstance(source, np.ndarray) else images.to_image(photo)


def to_tensor(rgb: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (H, W, 3) -> float32 (1, 3, H, W) in [0, 1], channels-last; bytes travel to the device, not floats."""
    return image_to_input(_shared(rgb)[None].to(device), *rgb.shape[:2])


def _shared(rgb: np.ndarray) -> Tensor:
    """The same bytes as a tensor, copied where torch cannot share such memory."""
    return torch.from_numpy(rgb.copy() if not rgb.flags.writeable or min(rgb.strides) < 0 else rgb)


def to_uint8(image: Tensor) -> np.ndarray:
    """Floating (3, H, W) in [0, 1] -> uint8 (H, W, 3), rounded to nearest (half to even)."""
    return output_to_image(image[None], *image.shape[1:])[0].cpu().numpy()
