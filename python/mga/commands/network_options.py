"""The settings of a network, those of section 4.4 of the paper among them, as options of a command.

``mga train`` takes the same settings from its configuration, under the same names (``mga.training.recipe``).
"""

from __future__ import annotations

import argparse

from mga_kernels.errors import InputError
from mga_kernels.networks import ModelConfig
from mga_kernels.networks.config import PATCH_SIZES, SCALES
from mga_kernels.ops.select_patches import SELECTIONS

from ..files.records import Record
from ..settings.values import parse_split
from .options import patches, word

OPTIONS = ("network", "scale", "patch_size", "split", "mask_classes", "selection", "k")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options for every setting, None where not given: ``ModelConfig`` has the defaults, which are the paper's."""
    group = parser.add_argument_group("model")
    group.add_argument("--network", metavar="NAME", help="one that has two halves; `mga info` lists them")
    group.add_argument("--scale", type=int, choices=SCALES)
    group.add_argument("--patch-size", type=int, choices=PATCH_SIZES, help="p (Table 6 of the paper; default 4)")
    group.add_argument(
        "--split", type=word(parse_split), metavar="A+B", help="blocks of Base-Net and Refine-Net (Table 5)"
    )
    group.add_argument(
        "--mask-classes", type=int, choices=(1, 2), help="channels of the mask module (Table 3; default 2)"
    )
    group.add_argument("--selection", choices=SELECTIONS, help="which cells are refined (Table 7; default largest)")
    group.add_argument("--k", type=patches, metavar="K", help="patches refined per image (default 16000 / p^2)")


def given_options(args: argparse.Namespace) -> Record:
    """Those of the options that were given."""
    return {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}


def model_config(args: argparse.Namespace) -> ModelConfig:
    """The configuration that the options describe; InputError where network or scale are missing or nothing fits.

    ``--k 0`` is left to the command: in a configuration, 0 stands for the paper's K.
    """
    settings = given_options(args)
    for name in ("network", "scale"):
        if name not in settings:
            raise InputError(f"{args.command}: --{name} is missing")
    classes = settings.pop("mask_classes", 2)
    return ModelConfig(**settings, mask={} if classes == 2 else {"classes": classes})
