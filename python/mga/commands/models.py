"""Models as commands are given them: by name, or as a file of ours or of others."""

from __future__ import annotations

import argparse

from mga_kernels.engine.model import MaskGuidedSR
from mga_kernels.errors import InputError


def load(
    args: argparse.Namespace,
    scale: int | None = None,
    expected_scale: int | None = None,
    runtime: str = "auto",
    **settings: str | float | None,
) -> MaskGuidedSR:
    """The model that ``--model`` and the options beside it name.

    Where a file leaves its scale open, ``scale`` decides, or else ``expected_scale``; InputError for a model of another
    ``scale``.
    """
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
        denoise=getattr(args, "denoise", None),
        denoise_source=getattr(args, "denoise_model", None),
        runtime=runtime,
        **settings,
    )
    if scale not in (None, model.scale):
        raise InputError(f"{args.command}: the model {args.model} is for x{model.scale}, not for --scale {scale}")
    return model
