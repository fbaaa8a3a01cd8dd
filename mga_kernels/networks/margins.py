"""Upsamplers over patches with a margin, which their convolutions use up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Enlarge:
    """A step of an upsampler: by a pixel shuffle, or by nearest neighbours."""

    factor: int
    shuffle: bool = True

    def __call__(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, self.factor) if self.shuffle else F.interpolate(x, scale_factor=self.factor)


Step = nn.Conv2d | Enlarge | Callable[[Tensor], Tensor]


def upsampled(x: Tensor, steps: Sequence[Step], margin: int) -> Tensor:
    """``steps`` one after the other over ``x`` (N, C, H, W), of which ``margin`` pixels to each side are context only.

    Convolutions use the margin up instead of padding by zeros. It is cut off where those that follow need no more of
    it, and where it is too small what is missing is padded.
    """
    needs = [0]
    for step in reversed(steps):
        if isinstance(step, nn.Conv2d):
            needs.append(needs[-1] + step.kernel_size[0] // 2)
        else:
            needs.append(-(-needs[-1] // step.factor) if isinstance(step, Enlarge) else needs[-1])
    for step, need in zip(steps, needs[:0:-1], strict=True):
        x, margin = cropped(x, margin - need), min(margin, need)
        if isinstance(step, nn.Conv2d):
            reach = step.kernel_size[0] // 2
            used = min(reach, margin)
            x, margin = F.conv2d(x, step.weight, step.bias, padding=reach - used), margin - used
        else:
            x, margin = step(x), margin * step.factor if isinstance(step, Enlarge) else margin
    return cropped(x, margin)


def cropped(x: Tensor, pixels: int) -> Tensor:
    return x[..., pixels:-pixels, pixels:-pixels] if pixels > 0 else x
