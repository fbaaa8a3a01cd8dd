"""Every launch that the operators' Triton kernels make, for ``triton_report.py``.

The coarse features of the five networks in each dtype and patch size, and the layers of networks in our own
convolutions: some by hand, all of those networks that are WALKED or MASKED, and those over lists of tiles of the
shipped model, of ``gpu_floors.REFINING`` and of networks with classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gpu_floors
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mga_kernels.networks import MaskGuidedNetwork, ModelConfig, WholeConfig, WholeNetwork
from mga_kernels.ops.convolve_pixels import layout as pixels
from mga_kernels.runtimes.cuda.own import OwnPlanner

CHANNELS = {"FSRCNN": 12, "PAN": 40, "RFDN": 50, "SRResNet, RCAN": 64}
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
PATCH_SIZES, SCALES = (2, 4, 8), (2, 3, 4)
ORDERS = ("softmax-then-pool", "pool-then-softmax")
MEMORY_FORMATS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
WALKED = ("compact", "span", "msrresnet", "rrdbnet")  # networks of which every convolution is compiled,
MASKED = ("rfdn", "fsrcnn", "srresnet")  # and of mask-guided ones of K = 1000 cells
# Tensors of convolve_pixels_, behind the first four.
OPTIONAL = "skip", "also", "tiles", "sums", "finite", "added", "count", "chosen"
TILES = 4 + OPTIONAL.index("tiles")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _feature(channels: int, p: int, dtype: torch.dtype, layout: str = "channels-last") -> torch.Tensor:
    return torch.empty(1, channels, 8 * p, 16 * p, dtype=dtype).contiguous(memory_format=MEMORY_FORMATS[layout])


def _indices() -> torch.Tensor:
    return torch.zeros(1, 16, dtype=torch.int32)


def mask_head_launches() -> Iterator[tuple]:
    forms = [(p, 2, ORDERS[0], "ieee") for p in PATCH_SIZES]
    forms += [(4, 2, ORDERS[1], "ieee"), (4, 1, ORDERS[0], "ieee"), (4, 2, ORDERS[0], "tf32")]
    for c in CHANNELS.values():
        for dtype in FLOATS:
            for p, classes, order, precision in forms:
                if precision == "tf32" and dtype != torch.float32:
                    continue
                shapes = (c, c, 3, 3), (c,), (classes, c, 3, 3), (classes,)
                arguments = (_feature(c, p, dtype), *(torch.empty(s, dtype=dtype) for s in shapes), p, order)
                form = f"p={p} {order if classes == 2 else '1 channel'}{' tf32' if precision == 'tf32' else ''}"
                yield f"C={c} {_name(dtype)} {form}", "mask_head", arguments, precision == "tf32"


def dynamic_filter_launches() -> Iterator[tuple]:
    for dtype in (*FLOATS, torch.float64):
        for c in (1, *CHANNELS.values()):
            weights = torch.empty(25, c, 1, 1, dtype=dtype), torch.empty(25, dtype=dtype)
            arguments = (torch.empty(1, 8, 16, dtype=dtype), torch.empty(1, c, 8, 16, dtype=dtype), *weights)
            yield f"S={c} {_name(dtype)}", "dynamic_filter", arguments, False


def gather_launches() -> Iterator[tuple]:
    for c in CHANNELS.values():
        for dtype in FLOATS:
            for p in PATCH_SIZES:
                for layout in MEMORY_FORMATS:
                    arguments = (_feature(c, p, dtype, layout), _indices(), p, 1)
                    yield f"C={c} {_name(dtype)} p={p} {layout}", "gather_patches", arguments, False


def paste_launches() -> Iterator[tuple]:
    for side in sorted({p * s for p in PATCH_SIZES for s in SCALES}):
        for layout, memory_format in MEMORY_FORMATS.items():
            image = torch.empty(1, 3, 4 * side, 4 * side).contiguous(memory_format=memory_format)
            for dtype in (*FLOATS, torch.uint8):
                patches = torch.empty(16, 3, side, side, dtype=dtype).contiguous(memory_format=memory_format)
                case = f"q={side} {_name(dtype)} {layout}"
                yield case, "paste_patches_", (image.to(dtype), patches, _indices()), False


def edge_launches() -> Iterator[tuple]:
    packed = torch.empty(1, 64, 128, 3, dtype=torch.uint8)
    planar = packed.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for layout, image in {"packed": packed, "planar": planar}.items():
        for dtype in FLOATS:
            yield f"{_name(dtype)} {layout}", "image_to_input", (image, 64, 128, 1.0, dtype), False
            output = image.permute(0, 3, 1, 2).to(dtype)
            yield f"{_name(dtype)} {layout}", "output_to_image", (output, 64, 128, 1.0), False


def high_pass_launches() -> Iterator[tuple]:
    """Of cells of patches, and of regions: 12 and 16 LR pixels at x4."""
    for side in (16, 48, 64):
        yield f"side={side}", "high_pass", (torch.empty(1, 2 * side, 3 * side, 3, dtype=torch.uint8), side), False


# Channels, outputs, size of the kernel and what else a layer has: some forms by hand, also without slopes.
PIXEL_LAYERS: dict[str, tuple[int, int, int, dict[str, Any]]] = {
    "3x3 C=48, attention": (48, 48, 3, {"gate": 2, "skip": True}),
    "3x3 C=64, skip": (64, 64, 3, {"skip": True, "activation": 1}),
    "3x3 C=64 to 256, shuffle 2": (64, 256, 3, {"shuffle": 2}),
    "3x3 C=64 to bytes x4": (64, 48, 3, {"bytes": True, "shuffle": 4}),
    "3x3 C=48, of the mask": (48, 48, 3, {"activation": 1}),
    "3x3 C=64 to scores of the mask": (64, 1, 3, {"plane": True}),
}


def pixel_launches() -> Iterator[tuple]:
    for name, layer in PIXEL_LAYERS.items():
        yield f"{name} float16", "convolve_pixels_", _pixel_arguments(torch.float16, *layer), False
    for network in WALKED:
        for case, arguments in walked_launches(whole(network), 0):
            yield f"{network}, {case} float16", "convolve_pixels_", arguments, False
    for network in MASKED:
        planner = gpu_floors.own(MaskGuidedNetwork(ModelConfig(network, gpu_floors.SCALE)))
        for case, arguments in walked_launches(planner, planner.weights.config.k):
            yield f"{network} -M, {case} float16", "convolve_pixels_", arguments, False
    for network in (gpu_floors.SHIPPED, *gpu_floors.REFINING):
        for case, arguments in walked_launches(gpu_floors.refining(network), 1):
            if arguments[TILES] is not None:
                yield f"{network} in regions, {case} float16", "convolve_pixels_", arguments, False
    for case, arguments in walked_launches(gpu_floors.by_classes(), 0):
        yield f"by classes, {case} float16", "convolve_pixels_", arguments, False


def whole(name: str) -> OwnPlanner:
    return gpu_floors.own(WholeNetwork(WholeConfig(name, 4, gpu_floors.WHOLE[name])))


def walked_launches(planner: OwnPlanner, k: int) -> Iterator[tuple[str, tuple]]:
    """The convolutions that a network at x4 makes, each once, by the road of its plan in our own convolutions."""
    known = set()
    for out, x, weight, _, *others in calls_of(planner, False, k):
        size, *numbers = others[len(OPTIONAL) :]
        there = [word for word, one in zip(OPTIONAL, others, strict=False) if one is not None]
        kind = "bytes" if out.dtype == torch.uint8 else str(out.shape[2])
        key = size, x.shape[2], kind, *numbers[:4], *there
        if key not in known and size:
            known.add(key)
            stride, shuffle, gate, activation = numbers[:4]
            more = [f"{word} {n}" for word, n in (("stride", stride), ("shuffle", shuffle)) if n > 1]
            more += [f"{word} {n}" for word, n in (("gate", gate), ("activation", activation)) if n]
            case = ", ".join([f"{size}x{size} C={x.shape[2]} to {kind}", *there, *more])
            yield case, tuple(on_the_cpu(one) for one in (out, x, weight, _, *others))


def calls_of(
    planner: OwnPlanner, dense: bool, k: int, height: int = gpu_floors.HEIGHT, width: int = gpu_floors.WIDTH
) -> list[tuple]:
    """Arguments of the convolutions that a plan makes of an image, which have no memory."""
    plan = planner.plan(height, width, k)
    with torch.no_grad(), gpu_floors.one_launch_each():
        plan._run_all(dense, k)  # what is made once is made here
        with Calls("convolve_pixels_") as made:
            plan._run_all(dense, k)
    return made.calls


def on_the_cpu(value: Any) -> Any:
    """Memory of the same shape and strides, which nobody touches, for a tensor without any."""
    if not isinstance(value, torch.Tensor):
        return list(value) if isinstance(value, tuple) else value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cpu")


class Calls(TorchDispatchMode):
    """Within it the arguments of every call of an operator are kept."""

    def __init__(self, name: str):
        super().__init__()
        self.name, self.calls = name, []  # type: ignore[var-annotated]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func._schema.name.split("::")[-1] == self.name:
            self.calls.append(args)
        return func(*args, **(kwargs or {}))


def _pixel_arguments(dtype: torch.dtype, channels: int, outputs: int, size: int, has: dict[str, Any]) -> tuple:
    height, width, s = 32, 64, has.get("shuffle", 1)
    whole = pixels.padded(outputs)
    x, weight = torch.empty(height, width, channels, dtype=dtype), torch.empty(size**2, channels, whole, dtype=dtype)
    out = torch.empty(s * height, s * width, outputs // s**2, dtype=dtype)
    out = torch.empty(1, *out.shape, dtype=torch.uint8) if has.get("bytes") else out
    out = torch.empty(outputs, *out.shape[:2]).permute(1, 2, 0) if has.get("plane") else out
    skip = torch.empty_like(out) if has.get("skip") else None
    finite = torch.ones((), dtype=torch.bool) if has.get("bytes") else None
    numbers = size, 1, s, has.get("gate", 0), has.get("activation", 0), [], 1.0, 0
    return out, x, weight, torch.empty(5, whole), skip, None, None, None, finite, None, None, None, *numbers


def launches() -> Iterator[tuple]:
    """Every launch as its case, its operator, the operator's arguments, and whether TF32 is allowed."""
    makers = [mask_head_launches, dynamic_filter_launches, gather_launches, paste_launches, edge_launches]
    for maker in (*makers, high_pass_launches, pixel_launches):
        yield from maker()
