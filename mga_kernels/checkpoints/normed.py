"""Weights that a training keeps in parts, by weight or spectral normalisation: put together as PyTorch computes them.

PyTorch has two spellings of each: ``weight_g`` with ``weight_v`` and ``weight_orig`` with ``weight_u`` and ``weight_v``
beside it, or ``parametrizations.weight`` with ``original0`` and ``original1``, or ``original``, ``0._u`` and ``0._v``.
"""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from ..errors import CheckpointError
from ..system.texts import shown

GAIN, LEFT, RIGHT = "weight (gain)", "weight (left vector)", "weight (right vector)"  # as no module calls a tensor
NEW = "parametrizations.weight."
FORMS: tuple[dict[str, str], ...] = (  # last segments of names -> what they are called here; all must be there
    {"weight_v": "weight", "weight_g": GAIN},
    {f"{NEW}original1": "weight", f"{NEW}original0": GAIN},
    {"weight_orig": "weight", "weight_u": LEFT, "weight_v": RIGHT},
    {f"{NEW}original": "weight", f"{NEW}0._u": LEFT, f"{NEW}0._v": RIGHT},
)


def names_of_parts(names: Collection[str]) -> dict[str, str]:
    """Of the parts of weights, name -> name of the weight, or of what is beside it: GAIN, LEFT, RIGHT."""
    found: dict[str, str] = {}
    for spelling in FORMS:
        first = next(iter(spelling))
        for name in names:
            start = name.removesuffix(first)
            if start == name or (start and not start.endswith(".")) or f"{start}weight" in names:
                continue
            if all(start + end in names for end in spelling):
                found |= {start + end: start + new for end, new in spelling.items()}
    return found


def is_beside(name: str) -> bool:
    """Whether this, of the names that ``names_of_parts`` gives, is no weight itself."""
    return name.rpartition(".")[2] in (GAIN, LEFT, RIGHT)


def put_together(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors, with each weight in the place of its parts. CheckpointError where they do not fit each other."""
    result = {key: tensor for key, tensor in state.items() if not is_beside(key)}
    for key in (key for key in state if is_beside(key)):
        start, _, part = key.rpartition(".")
        start = start and f"{start}."
        if part != RIGHT:  # which comes with LEFT
            parts = [state[key]] if part == GAIN else [state[key], state[f"{start}{RIGHT}"]]
            weight = f"{start}weight"
            result[weight] = _product(state[weight], parts, f"{name}: tensor {shown(weight)}")
    return result


def _product(weight: Tensor, parts: list[Tensor], what: str) -> Tensor:
    """``weight`` by its gain over its norm, or over its largest singular value, of which ``parts`` are the vectors."""
    exact, *vectors = (tensor.double() for tensor in (weight, *parts))
    if len(vectors) == 2:
        left, right = vectors
        if exact.ndim < 2 or left.shape != exact.shape[:1] or right.numel() * len(exact) != exact.numel():
            raise CheckpointError(f"{what} and the vectors of its spectral normalisation do not fit each other")
        made = exact / (left @ exact.flatten(1) @ right.flatten())
    else:
        (gain,) = vectors
        fits = gain.ndim in (0, exact.ndim) and all(g in (1, w) for g, w in zip(gain.shape, exact.shape, strict=False))
        if not fits:
            raise CheckpointError(f"{what} is {tuple(exact.shape)}, and its gain is {tuple(gain.shape)}")
        over = [axis for axis in range(exact.ndim) if gain.ndim == 0 or gain.shape[axis] == 1]
        made = gain * exact / exact.square().sum(over, keepdim=True).sqrt()
    if not made.isfinite().all():
        raise CheckpointError(f"{what} is damaged: its normalisation divides by zero")
    return made.float()
