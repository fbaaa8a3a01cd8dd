"""Models as commands are given them: by name, or as a file of ours or of others."""

from __future__ import annotations

import argparse

from mga_kernels.errors import InputError

from ..console.loading import loading
from .options import SHIPPED

with loading():  # PyTorch's modules
    from mga_kernels.engine.model import MaskGuidedSR
    from mga_kernels.engine.settings import Setting


def load(
    args: argparse.Namespace,
    scale: int | None = None,
    expected_scale: int | None = None,
    **settings: Setting,
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
        **settings,
    )
    if scale not in (None, model.scale):
        raise InputError(f"{args.command}: the model {args.model} is for x{model.scale}, not for --scale {scale}")
    return model


def load_by_scale(args: argparse.Namespace, **settings: Setting) -> MaskGuidedSR:
    """``load`` for a command that shrinks what the model makes to its ``--scale`` (``options.add_size_arguments``).

    That decides what a file leaves open; InputError where it is more than the model's.
    """
    expected = int(args.scale) if args.scale in SHIPPED else None
    model = load(args, None, expected, **settings)
    if args.scale is not None and args.scale > model.scale:
        wanted = f"not for --scale {args.scale:g}"
        raise InputError(f"{args.command}: the model {args.model} is for x{model.scale}, {wanted}")
    return model
