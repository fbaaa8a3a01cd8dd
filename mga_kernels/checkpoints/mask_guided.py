"""Mask-guided networks in the layout of the authors' code: base.*, mask.spa_mask_1.*, mask.conv_kernel.*, refine.*.

That layout means a mask whose softmax comes before the mean over a cell, filters that are made from the mask itself,
4x4 cells, and an RFDN whose attention has no max-pool, not even in the Base-Net (the paper counted one there; the
tensors are the same). The names of the halves are ours.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ..errors import CheckpointError, InputError
from ..networks import MaskGuidedNetwork, ModelConfig, get_network
from .foreign import prefixes
from .recognise import decide_scale, describe, find_spelling, fitted, recognise
from .scales import Hint
from .spelling import MaskGuidedNames, Reading, State, count, published, renamed

MASK = ("mask.spa_mask_1.0.weight", "mask.spa_mask_1.2.weight", "mask.conv_kernel.weight")
RULES = {r"mask\.spa_mask_1\.0\.": "mask.conv1.", r"mask\.spa_mask_1\.2\.": "mask.conv2."}
HALVES = ("base.", "refine.")  # prefixes


def is_mask_guided(state: State) -> bool:
    """Whether these are the names of the authors' layout."""
    return "" in places_of_mask_guided(state)


def places_of_mask_guided(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The beginnings of names behind which this layout begins, each with its halves (``inside.find_networks``)."""
    starts: dict[str, tuple[str, ...]] = dict.fromkeys(prefixes(names, MASK), HALVES)
    for half in HALVES if starts else ():
        having = {
            name[: found.start()] for name in names for found in re.finditer(rf"(?<![^.]){re.escape(half)}", name)
        }
        starts = {start: halves for start, halves in starts.items() if start in having}
    return starts


def load_mask_guided(
    state: State, name: str, scale: int | None = None, hints: Sequence[Hint] = ()
) -> MaskGuidedNetwork:
    """Base-Net, mask and Refine-Net with these weights, fp32 on the CPU. ``scale`` and ``hints``: see ``recognise``.

    CheckpointError, beginning with ``name``, where tensors do not fit.
    """
    base = {key.removeprefix("base."): tensor for key, tensor in state.items() if key.startswith("base.")}
    refine = {key.removeprefix("refine."): tensor for key, tensor in state.items() if key.startswith("refine.")}
    spelling = find_spelling(base)
    if spelling is None:
        raise CheckpointError(
            f"{name} is mask-guided, but its Base-Net is of no network that is known: {describe(base)}"
        )
    try:
        reading = spelling.read(base)
        names = published(get_network(reading.network)).mask_guided
        if names is None:
            raise CheckpointError(f"{spelling.name} exists whole only")
        scale = _scale(reading, names, base, refine, scale, hints, name)
        config = _config(reading, names, refine, scale)
        tensors = {f"base.{key}": tensor for key, tensor in reading.state.items()}
        tensors |= {key: tensor for key, tensor in renamed(state, RULES).items() if not key.startswith("base.")}
        network = fitted(lambda: MaskGuidedNetwork(config), tensors)
    except (CheckpointError, InputError) as error:
        raise CheckpointError(f"{name} looks like mask-guided {spelling.name}, but {error}") from None
    assert isinstance(network, MaskGuidedNetwork)
    return network.eval().requires_grad_(False)


def _scale(
    reading: Reading,
    names: MaskGuidedNames,
    base: State,
    refine: State,
    scale: int | None,
    hints: Sequence[Hint],
    name: str,
) -> int:
    """The scale that the tensors or, where they do not tell, a trial of the Base-Net finds, or else a hint."""
    found: int | None
    if names.scale is not None and len(reading.scales) > 1:
        found = names.scale(refine)
    elif len(reading.scales) == 1 or scale is not None:
        found = reading.scales[0] if scale is None else scale
    else:
        found = _tried(base) or decide_scale(reading.scales, f"{name} is mask-guided", hints)
    if found is None:
        which = " or ".join(f"x{s}" for s in reading.scales)
        raise CheckpointError(f"it is for {which}, which its tensors do not tell; say which: scale= (--model-scale)")
    if found not in reading.scales or scale not in (None, found):
        raise CheckpointError(f"it is for x{' or x'.join(map(str, reading.scales))}, not for scale={scale}")
    return found


def _tried(base: State) -> int | None:
    """The scale at which the Base-Net works, if a trial decides."""
    try:
        return recognise(base, "its Base-Net").config.scale
    except CheckpointError:
        return None


def _config(reading: Reading, names: MaskGuidedNames, refine: State, scale: int) -> ModelConfig:
    mask = {"order": "softmax-then-pool", "filter_source": "probability"}
    split = (reading.blocks, count(refine, names.blocks))
    return ModelConfig(reading.network, scale, split=split, base=dict(names.base), mask=mask)
