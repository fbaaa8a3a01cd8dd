"""``dynamic_filter``: under-SR probability -> mask, by a filter generated at each position."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._native import register_fake
from ...errors import InputError
from ..grid import describe
from ..registry import FLOATS, Backend, NativeBackend, Operator, TritonBackend
from . import reference

DTYPES = (*FLOATS, torch.float64)


def dynamic_filter(probability: Tensor, source: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The D-Conv of section 3.3: every cell is filtered by 5x5 coefficients of its own.

    ``probability`` (B, Hp, Wp), ``source`` (B, S, Hp, Wp), ``weight`` (25, S, 1, 1), ``bias`` (25) -> mask (B, Hp, Wp):
    the 1x1 convolution of ``source`` gives 25 coefficients at each position, in raster order of the 5x5 neighbourhood
    of ``probability`` that they weigh, zeros outside. ``source`` is the probability itself (S = 1, as released) or the
    pooled feature (S = C, as the text has it). Other odd sizes n work alike with n * n coefficients. The
    dtype is that of the probability, to which the others are converted. Differentiable by the reference. Raises
    InputError for wrong shapes.
    """
    check_filter("dynamic_filter", probability, source, weight, bias)
    return OPERATOR(probability, source, weight, bias)


def check_filter(op: str, probability: Tensor, source: Tensor, weight: Tensor, bias: Tensor) -> None:
    if not isinstance(probability, Tensor) or probability.ndim != 3 or not probability.is_floating_point():
        raise InputError(f"{op}: probability must be a floating tensor (B, Hp, Wp), got {describe(probability)}")
    batch, rows, columns = probability.shape
    if source.ndim != 4 or (source.shape[0], *source.shape[2:]) != (batch, rows, columns):
        raise InputError(f"{op}: source must be ({batch}, S, {rows}, {columns}), got {tuple(source.shape)}")
    taps = weight.shape[0]
    size = round(taps**0.5)
    if size * size != taps or size % 2 == 0:
        raise InputError(f"{op}: weight must give the square of an odd number of coefficients, as 25, got {taps}")
    if tuple(weight.shape) != (taps, source.shape[1], 1, 1) or tuple(bias.shape) != (taps,):
        raise InputError(
            f"{op}: weight must be ({taps}, {source.shape[1]}, 1, 1) and bias ({taps},), "
            f"got {tuple(weight.shape)} and {tuple(bias.shape)}"
        )


register_fake("dynamic_filter")(reference.fake)
OPERATOR = Operator[Tensor](
    "dynamic_filter",
    TritonBackend("dynamic_filter", f"{__name__}.triton", reference.dynamic_filter, DTYPES),
    NativeBackend("dynamic_filter", "cpu", DTYPES),
    Backend(reference.dynamic_filter),
)
