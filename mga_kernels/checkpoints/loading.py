"""Any file of weights, or a network that spandrel loaded -> a network that can be run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypedDict

from ..errors import CheckpointError, InputError
from ..modes import ordinary
from ..networks import SRNetwork
from .class_files import has_classes, load_classes
from .mask_guided import is_mask_guided, load_mask_guided
from .native import find_model, is_native, load_native, read_metadata
from .ncnn import load_ncnn, param_of
from .published import read_state_dict
from .recognise import recognise
from .scales import hints_at_scale


class Decided(TypedDict, total=False):
    """What ``load_checkpoint`` may be told of a published network."""

    colour: str | None
    input_range: str | None
    scale: int | None
    expected_scale: int | None


@ordinary()
def load_checkpoint(
    source: object,
    colour: str | None = None,
    input_range: str | None = None,
    scale: int | None = None,
    expected_scale: int | None = None,
) -> SRNetwork:
    """The network in evaluation mode, fp32, on the CPU.

    ``source``: the name of a shipped model, the path of our own file, of a published network, of a graph of ncnn that
    has its weights beside it, or of a file in the layout of the authors of the mask-guided paper or of ClassSR, or
    spandrel's ImageModelDescriptor. The other arguments decide what the tensors of a published network leave open
    (``recognise``). Where they leave the scale open, and ``scale`` is not given, ``expected_scale`` decides, then the
    name of the file with a CheckpointNote; a file that tells another scale than the expected one is loaded as what it
    is. CheckpointError where file and network do not fit.
    """
    conventions = {"colour": colour, "input_range": input_range}
    if type(source).__module__.split(".")[0] == "spandrel":
        from .spandrel import from_descriptor

        _refuse("of a network that spandrel loaded", conventions | {"scale": scale})
        return from_descriptor(source)
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"checkpoint: expected a path or what spandrel loaded, got {type(source).__name__}")
    if not os.path.exists(source):
        find_model(source)  # which says what there is
    name = f"checkpoint: {os.fspath(source)}"
    graph = param_of(source)
    if graph is not None:
        _refuse("part of its graph", conventions | {"scale": scale})
        return load_ncnn(graph, f"checkpoint: {graph}")
    if is_native(source):
        _refuse("inside a file that `mga train` wrote", conventions | {"scale": scale})
        return load_native(source)
    state, hints = read_state_dict(source), hints_at_scale(source, expected_scale)
    try:
        if is_mask_guided(state):
            _refuse("part of what a mask-guided network is", conventions)
            return load_mask_guided(state, name, scale, hints)
        if has_classes(state):
            _refuse("part of what a network with classes is", {"colour": colour})
            return load_classes(state, name, input_range, scale, hints)
        return recognise(state, name, colour, input_range, scale, hints)
    except (RuntimeError, IndexError, KeyError) as error:  # tensors of strange types or shapes
        raise CheckpointError(f"{name} cannot be used: {str(error).splitlines()[0]}") from None


def is_whole(source: str | os.PathLike) -> bool:
    """Whether ``load_checkpoint`` takes this shipped model or file for a whole network, which has no mask."""
    path = find_model(source)
    if param_of(path) is not None:
        return True
    if is_native(path):
        return not read_metadata(path)["config"].masked
    return not is_mask_guided(read_state_dict(path))


def _refuse(where: str, given: Mapping[str, object]) -> None:
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise InputError(f"checkpoint: {' and '.join(names)} cannot be given, because it is {where}; leave it out")
