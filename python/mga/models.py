"""Models as commands are given them: by name, or as a file of ours or of others."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

from mga_kernels.engine import MaskGuidedSR
from mga_kernels.errors import InputError
from mga_kernels.networks import WholeNetwork
from mga_kernels.pictures import to_tensor


def load(args: argparse.Namespace, expected_scale: int | None = None, **settings: Any) -> MaskGuidedSR:
    """The model that ``--model`` and the options beside it name.

    The ``--scale`` of a command decides what a file leaves open, and InputError where the model is for another one; for
    a command without such an option ``expected_scale`` decides.
    """
    scale = getattr(args, "scale", None)
    model = MaskGuidedSR.from_checkpoint(
        args.model,
        colour=args.colour,
        input_range=args.input_range,
        scale=args.model_scale,
        expected_scale=expected_scale if scale is None else scale,
        k=args.k,
        fraction=args.fraction,
        device=args.device,
        dtype=args.dtype,
        **settings,
    )
    if scale not in (None, model.scale):
        raise InputError(f"{args.command}: the model {args.model} is for x{model.scale}, not for --scale {scale}")
    return model


def variant_of(model: MaskGuidedSR, wanted: str) -> str:
    """``wanted``, which is "masked" unless said otherwise, or "whole" for a network that is not divided."""
    if not model.whole:
        return wanted
    if wanted != "masked":
        raise InputError(f"--variant {wanted}: {model.network} is a whole network, which has no variants; leave it out")
    return "whole"


@torch.inference_mode()
def own_luma(model: MaskGuidedSR, lr: np.ndarray) -> np.ndarray | None:
    """What a network of luma is compared by: its luma in 16..235, (sH, sW), of uint8 (H, W, 3); None for others."""
    network = getattr(model, "model", None)
    if not isinstance(network, WholeNetwork) or network.config.colour != "y":
        return None
    return network.luma(to_tensor(lr, model.device))[0, 0].double().cpu().numpy()
