"""``mask_head``: coarse feature -> under-SR probability of each cell."""

from __future__ import annotations

from torch import Tensor

from ..._native import register_fake
from ...errors import InputError
from ..grid import check_count, check_divides, describe
from ..registry import FLOATS, Backend, NativeBackend, Operator, TritonBackend
from . import reference

HEAD_FORMS = ("softmax-then-pool", "pool-then-softmax")


def mask_head(
    feature: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor, patch_size: int, order: str
) -> Tensor:
    """How likely each p x p cell is restored too weakly by the Base-Net (section 3.3).

    ``feature`` (B, C, H, W), ``weight1`` (C', C, 3, 3), ``bias1`` (C'), ``weight2`` (2, C', 3, 3), ``bias2`` (2) ->
    (B, H / p, W / p): convolution, ReLU, convolution to two scores, softmax over them and mean over the cell,
    of which the second class is returned. ``order`` "softmax-then-pool" is what the authors released and trained,
    "pool-then-softmax" is what the text says.

    With ``weight2`` (1, C', 3, 3) it is the one-channel form of Table 3: mean, then leaky ReLU of slope 0.1; ``order``
    plays no part.

    The result is float32, so that cells do not tie by rounding (float64 for a float64 feature). Half precision is
    accumulated in float32. Differentiable by the reference.

    Raises InputError for wrong shapes, an unknown order, or sizes that p does not divide.
    """
    op = "mask_head"
    if not isinstance(feature, Tensor) or feature.ndim != 4 or not feature.is_floating_point():
        raise InputError(f"{op}: feature must be a floating tensor (B, C, H, W), got {describe(feature)}")
    if order not in HEAD_FORMS:
        raise InputError(f"{op}: order {order!r} does not exist; choose one of {', '.join(HEAD_FORMS)}")
    patch_size = check_count(op, "patch_size", patch_size, 1)
    check_divides(op, "feature", feature.shape[2], feature.shape[3], patch_size)
    hidden, classes = weight1.shape[0], weight2.shape[0]
    expected = (
        ("weight1", weight1, (hidden, feature.shape[1], 3, 3)),
        ("bias1", bias1, (hidden,)),
        ("weight2", weight2, (classes, hidden, 3, 3)),
        ("bias2", bias2, (classes,)),
    )
    for name, tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            raise InputError(f"{op}: {name} must be {shape}, got {tuple(tensor.shape)}")
    if classes not in (1, 2):
        raise InputError(f"{op}: weight2 must give 1 or 2 channels, got {classes}")
    return OPERATOR(feature, weight1, bias1, weight2, bias2, patch_size, order)


def _triton_refuses(feature: Tensor, *arguments: int | float) -> str | None:
    return "patch_size is above 14, and no such cell fits its tile" if arguments[4] > 14 else None


register_fake("mask_head")(reference.fake)
OPERATOR = Operator[Tensor](
    "mask_head",
    TritonBackend("mask_head", f"{__name__}.triton", reference.mask_head, FLOATS, _triton_refuses),
    NativeBackend("mask_head", "cpu", FLOATS),
    Backend(reference.mask_head),
)
