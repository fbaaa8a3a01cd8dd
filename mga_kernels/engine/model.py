"""MaskGuidedSR: load a mask-guided network, choose K, run it on tensors and on photographs."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Generator, Iterable
from typing import Any, Literal, NoReturn, TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from ..checkpoints import load_between, load_checkpoint, load_native
from ..checkpoints.loading import Decided
from ..errors import InputError, OutOfMemoryError
from ..modes import ordinary
from ..networks import VARIANTS, Config, SRNetwork
from ..networks.amount import Amount
from ..networks.copies import from_bytes, private_copy, to_bytes
from ..networks.interface import Cells
from ..networks.layers import pad_by_reflection
from ..networks.tiny import Border
from ..notices import warn
from ..quantities import check_whole_number
from ..runtimes import Plan, finite
from ..system.memory import bare
from ..system.threads import Lock, allowed_threads
from . import batch
from .arguments import WHOLE, check_out, check_size, check_tensor, check_whole, choose_device
from .explanation import Explanation, Timings, steps
from .pictures import ImageLike, Picture, in_form_of, levels, like, read, values
from .result import Result
from .runner import Runner
from .settings import Setting, Settings, taking

VOLATILE = ("_lock", "_runner", "_deep")  # what a copy in another process or beside this one makes anew

Value = TypeVar("Value")


class MaskGuidedSR:
    """A network ready to run on tensors and photographs: -M, -B, -A and -D of the paper (section 3), or as a whole.

    ``Settings`` lists what it takes beside the network; InputError for arguments that cannot be. ``network``: its name.
    ``patch_size``: the side of a cell in LR pixels, 1 without a mask. ``mode``, ``runtime``, ``k``, ``fraction`` and
    ``memory`` (bytes) are those of ``Settings``, the last three None where not asked for; ``amount``: what K is by.
    """

    @ordinary()
    @taking(Settings)
    def __init__(self, network: SRNetwork, settings: Settings):
        self.settings, self.masked = settings.of(network), network.masked
        self.config: Config = network.config
        self.dtype, self._wanted = settings.tensor_dtype, settings.photograph_dtype
        self._gave_up: dict[str, str] = {}
        self._watches_tensors = self.dtype == torch.float16  # the others have the range of float32
        # float16 cannot hold every weight, so what may be run instead is made from these. They never change.
        self._exact = private_copy(network).cpu().eval().requires_grad_(False)
        self._start()

    def _start(self) -> None:
        """Make what ``VOLATILE`` names."""
        self.device = choose_device(self.settings.device)
        self._lock = Lock()  # a plan has one set of buffers: threads take turns
        self._runner = self._run_in(self.dtype, self._wanted)
        self._deep: Runner | None = None  # what runs photographs of more than 8 bits a channel, once there is one

    def _run_in(self, dtype: torch.dtype, wanted: torch.dtype | None, deep: bool = False) -> Runner:
        """What runs tensors in ``dtype`` and photographs in ``wanted``."""
        network = self._exact if dtype == torch.float32 and self.device.type == "cpu" else copy.deepcopy(self._exact)
        runner = Runner(network, self.device, dtype, wanted, self.settings, self._lock, deep)
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
    @taking(Settings)
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], settings: Settings) -> MaskGuidedSR:
        """A shipped model ("span-x4", "span-x4-regions") or a file that training wrote.

        CheckpointError for a file that is missing, damaged or of another network, InputError for the other arguments.
        """
        return cls(load_native(name_or_path), **vars(settings))

    @classmethod
    @ordinary()
    def from_checkpoint(
        cls,
        source: object,
        *,
        colour: str | None = None,
        input_range: str | None = None,
        scale: int | None = None,
        expected_scale: int | None = None,
        denoise: float | None = None,
        denoise_source: str | os.PathLike[str] | None = None,
        **settings: Setting,
    ) -> MaskGuidedSR:
        """Any file of weights: what ``from_pretrained`` takes, a published network, or the mask-guided authors' layout.

        A published network (.pth, .pt or .safetensors, or ncnn's .param; docs/checkpoints.md) runs whole, as it is.
        Where its tensors do not tell what it works on, a CheckpointError says so and one of these decides: ``colour``
        ("rgb", "ycbcr" or "y"), ``input_range`` ("0..1", "0..255", of luma "16..235", of YCbCr "clipped") and
        ``scale``. A scale that is still open is ``expected_scale`` or what the name of the file says, then with a
        CheckpointNote. ``denoise``, 0 to 1, mixes the weights with those of ``denoise_source``, which denoises least,
        by default the wdn file beside Real-ESRGAN's general one; 1 is the file as it is. ``settings`` are those of
        ``Settings``. ``source`` may also be an ImageModelDescriptor, as spandrel loads it.
        """
        asked = Settings(**settings)  # type: ignore[arg-type]
        decided = Decided(colour=colour, input_range=input_range, scale=scale, expected_scale=expected_scale)
        if denoise is None and denoise_source is None:
            return cls(load_checkpoint(source, **decided), **vars(asked))
        if denoise is None:
            raise InputError("MaskGuidedSR: denoise_source is there to be mixed; give denoise, from 0 to 1, too")
        return cls(load_between(source, denoise, denoise_source, **decided), **vars(asked))

    @property
    def network(self) -> str:
        return self.config.network

    @property
    def whole(self) -> bool:
        """Whether it has no mask."""
        return not self.masked

    @property
    def amount(self) -> Amount:
        return self.settings.amount or self.config.usual

    @property
    def k(self) -> int | None:
        return self.settings.k

    @property
    def fraction(self) -> float | None:
        return self.settings.fraction

    @property
    def memory(self) -> int | None:
        return self.settings.memory_bytes

    @property
    def mode(self) -> str | None:
        return self.settings.mode

    @property
    def runtime(self) -> str:
        return self.settings.runtime

    @property
    def refined(self) -> NoReturn:
        raise AttributeError("refined is of each photograph: ask for upscale(image, return_result=True).refined")

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
        """Rows and columns of cells of an LR image of so many pixels, those that it fills in part included."""
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
        """Allocate what photographs of this size need, so that the first of them is as fast as those after it.

        OutOfMemoryError where there is no room for one.
        """
        size = check_size(height, width)
        with self._lock, allowed_threads():
            runner = self._runner
            with runner.memory_errors(*size):
                runner.plan(*size).warm(runner.choice.dense(*size))

    @ordinary()
    def info(self) -> dict[str, str | list[str]]:
        """How photographs are run, why not in another way, and what was chosen for the sizes that are prepared."""
        runner = self._runner
        return {
            "photographs": runner.description,
            "mode": str(self.mode),
            "why not": [f"{name}: {reason}" for name, reason in runner.refused.items()],
            "prepared": runner.prepared(),
        }

    def _run(self, image: Tensor, steps: Callable[[Plan, bool], Value]) -> tuple[Value, int | None]:
        """``steps(plan, dense)`` and the cells refined, of a photograph (H, W, 3) as ``pictures.values`` gives it.

        Again in smaller tiles where memory ran out, and in a wider dtype where values were not finite.
        """
        size, deep = (image.shape[0], image.shape[1]), image.is_floating_point()
        while True:
            try:
                runner, value, refined = self._run_once(size, deep, steps)
            except OutOfMemoryError as problem:
                error = bare(problem)
            else:
                if value is not None:
                    return value, refined
                self._widen(runner, runner.narrow)
                continue
            with self._lock:
                if not self._of(deep).shrink(*size):
                    raise error

    def _of(self, deep: bool) -> Runner:
        """What runs photographs, ``deep`` ones or others; the lock is held."""
        if deep and self._deep is None:
            self._deep = self._run_in(torch.float32, torch.float32, deep=True)
        return self._deep if deep and self._deep is not None else self._runner

    def _run_once(
        self, size: tuple[int, int], deep: bool, steps: Callable[[Plan, bool], Value]
    ) -> tuple[Runner, Value | None, int | None]:
        """What ran it, and None for a value that was not finite."""
        with self._lock, allowed_threads():
            runner = self._of(deep)
            with runner.memory_errors(*size):
                plan, dense = runner.plan(*size), runner.choice.dense(*size)
                plan.start()
                value = steps(plan, dense)
                if plan.finite is not None and not bool(plan.finite):
                    return runner, None, None
                return runner, value, None if dense or self.whole else plan.chosen()

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

        In float16 it waits for the device, to see whether all values are finite (see ``Settings``).
        """
        variant = variant or self._exact.variants[-1]
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
                result = runner.model.unclamped(given, variant, Cells(k, selection, seed, threshold))
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

        A path or a PIL image gives a PIL image, a uint8 or uint16 array one of the same layout, a Photo a Photo.
        Orientation, alpha, grey levels, colour profile and metadata are kept (see ``mga_kernels.images``); what cannot
        be kept is said in a warning, or in the ``notes`` of a Photo. ``out``, uint8 (sH, sW, 3), takes the result of
        an RGB array and is returned. ``return_result``: a Result instead, whose notes are no warnings. ImageError for a
        file that cannot be read or kept as it is, InputError for another image, OutOfMemoryError where none has room.
        """
        timings = Timings(self.device)
        with timings.of("read"):
            photo = read(image)
        room = check_out(image, out, *(side * self.scale for side in photo.rgb.shape[:2]))
        border, rgb = Border.around(values(photo), 0, 1, self.patch_size)
        direct = None if any(border) else room
        with timings.of("run"):
            pixels, refined = self._run(rgb, lambda plan, dense: (plan.dense if dense else plan.run)(rgb, out=direct))
        with timings.of("write"):
            made = photo.upscaled(levels(border.cut(pixels, 0, 1, self.scale, room)))
            if not return_result:
                return out if out is not None else like(image, made)
            picture = in_form_of(image, made) if out is None else out
        return Result(picture, refined, list(made.notes), timings.seconds)

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
        """Upscale one photograph and return what was predicted, selected and refined on the way.

        Errors as of ``upscale``; InputError for a network without a mask.
        """
        if self.whole:
            raise InputError("explain: a whole network has no mask to show; leave that out or take a mask-guided model")
        timings = Timings(self.device)
        with timings.of("read"):
            photo = read(image)
        border, rgb = Border.around(values(photo), 0, 1, self.patch_size)
        (results, mask, indices), refined = self._run(rgb, lambda plan, dense: steps(plan, dense, rgb, timings))
        mask, indices = border.own_cells(mask, indices, self.patch_size)
        with timings.of("write"):
            parts = (levels(border.cut(result, 0, 1, self.scale).contiguous()) for result in results)
            coarse, made = map(photo.upscaled, parts)
            pictures = in_form_of(image, coarse), like(image, made)  # the notes are the same
        facts = self.patch_size, self.scale, timings.seconds, refined
        return Explanation(pictures[0], mask, indices, pictures[1], *facts)

    def _prepare(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        """Move, convert, and extend an image that is too small for the network by reflection."""
        smallest = self.config.definition.minimum_size
        image = pad_by_reflection(image.to(self.device, dtype), *(max(s, smallest) for s in image.shape[-2:]))
        return image.contiguous(memory_format=torch.channels_last)
