"""What a model is compared by."""

from __future__ import annotations

import numpy as np
import torch

from mga_kernels.engine.model import MaskGuidedSR
from mga_kernels.engine.pictures import to_tensor
from mga_kernels.errors import InputError
from mga_kernels.networks import WholeNetwork


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


def refined(model: MaskGuidedSR, lr: np.ndarray, k: int | None = None, fraction: float | None = None) -> int:
    """How many cells of an LR image, uint8 (H, W, 3), are refined; where a threshold decides, it is run for that."""
    if k is fraction is None and model.amount.threshold is not None:
        return model.upscale(lr, return_result=True).refined or 0
    height, width = lr.shape[:2]
    return model.resolve_k(height, width, k, fraction)
