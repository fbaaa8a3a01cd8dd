"""The mean colour that networks of the EDSR framework take off an image and add to the result, as a file has it."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import CheckpointError
from .spelling import Reading, State, shape

COLOUR_SHIFT = 1e-3  # by which the matrix of a mean shift may differ from that of identity
SHIFTS = ("sub_mean.", "add_mean.")


def mean_shift(state: State) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The mean colour that is taken off and added, and the range that its size tells; 0..1 without one.

    That is how networks are trained without it today.
    """
    if not has_shift(state):
        return (0.0, 0.0, 0.0), ("0..1",)
    shifts: list[Tensor] = []
    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        matrix = shape(state, f"{name}.weight")
        if matrix != (3, 3, 1, 1) or shape(state, f"{name}.bias", 1) != (3,):
            raise CheckpointError(f"tensor {name}.weight is {matrix}, and a mean shift has (3, 3, 1, 1)")
        if (state[f"{name}.weight"][:, :, 0, 0].float() - torch.eye(3, dtype=torch.float32)).abs().max() > COLOUR_SHIFT:
            raise CheckpointError(f"{name} changes more than the mean colour")
        shifts.append(sign * state[f"{name}.bias"].double())
    mean = shifts[0].tolist()
    if not torch.allclose(shifts[0], shifts[1], rtol=1e-3, atol=1e-3):
        raise CheckpointError("the mean that it takes off is not the one that it adds")
    return tuple(mean), ("0..1" if max(map(math.fabs, mean)) <= 1 else "0..255",)


def has_shift(state: State) -> bool:
    """Whether the file brings a mean colour."""
    return "sub_mean.weight" in state


def without_shift(state: State) -> dict[str, Tensor]:
    """The other tensors."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(SHIFTS)}


def with_other_means(reading: Reading, mean: tuple[float, ...], brought: bool = False) -> Reading:
    """A reading with what the file may be as well: of either range, with a mean or none.

    Programs of training have settings for both, of which the tensors keep nothing. ``mean`` is the usual one of 0..255.
    Where the file brings a mean shift, it may be one that its program makes and does not use (super-image).
    """
    none = (0.0,) * len(mean)
    ways = [(none, "0..1"), (none, "0..255")]
    if not brought:
        ways = [(mean, "0..255"), (tuple(value / 255 for value in mean), "0..1"), *ways]
    usual = (tuple(reading.settings["mean"]), reading.ranges[0])
    ways.sort(key=lambda way: (way[0] == none) != (usual[0] == none))  # what differs least comes first
    return replace(
        reading,
        others=tuple(
            replace(reading, settings={**reading.settings, "mean": colour}, ranges=(values,))
            for colour, values in ways
            if (colour, values) != usual
        ),
    )
