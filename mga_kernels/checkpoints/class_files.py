"""ClassSR in the layout of its authors' code: classifier.CondNet.*, classifier.lastOut.*, net1.*, net2.*, net3.*.

The branches are spelled as the networks are that they are, FSRCNN, MSRResNet and RCAN. Sub-images of 32x32 pixels, 28
apart, are what its authors test with.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ..errors import CheckpointError, InputError
from ..networks import ClassConfig, ClassNetwork
from .foreign import prefixes
from .recognise import describe, find_spelling, fitted, recognise
from .scales import Hint
from .spelling import State, renamed

MARKS = ("classifier.CondNet.0.weight", "classifier.lastOut.weight")
BRANCH = r"net(\d{1,2})\."
RULES = {r"classifier\.CondNet\.": "classifier.blocks.", r"classifier\.lastOut\.": "classifier.scores."}


def has_classes(state: State) -> bool:
    """Whether these are the names of that layout."""
    return "" in places_of_classes(state)


def places_of_classes(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The beginnings of names behind which this layout begins, each with its branches (``inside.find_networks``)."""
    return {
        start: tuple(
            {found[0]: None for name in names if name.startswith(start) and (found := _branch(name[len(start) :]))}
        )
        for start in prefixes(names, MARKS)
    }


def _branch(name: str) -> re.Match[str] | None:
    return re.match(BRANCH, name)


def load_classes(
    state: State, name: str, input_range: str | None = None, scale: int | None = None, hints: Sequence[Hint] = ()
) -> ClassNetwork:
    """Branches and classifier with these weights, fp32 on the CPU. ``scale`` and ``hints``: see ``recognise``.

    The branches work on 0..1 where their tensors leave that open. CheckpointError, beginning with ``name``, where
    tensors do not fit.
    """
    parts: dict[str, dict] = {}
    for key, tensor in state.items():
        if (found := _branch(key)) is not None:
            parts.setdefault(found[0], {})[key.removeprefix(found[0])] = tensor
    branches = []
    for start in sorted(parts, key=lambda start: int(start[3:-1])):
        part, what = parts[start], f"{name} is ClassSR, whose branch {start[:-1]}"
        spelling = find_spelling(part)
        if spelling is None:
            raise CheckpointError(f"{what} is of no network that is known: {describe(part)}")
        usual = "0..1" if "0..1" in spelling.read(part).ranges else None
        branches.append(recognise(part, what, "rgb", input_range or usual, scale, hints))
    tensors = {key: tensor for key, tensor in renamed(state, RULES).items() if _branch(key) is None}
    for number, branch in enumerate(branches):
        tensors |= {f"branches.{number}.{key}": tensor for key, tensor in branch.state_dict().items()}
    try:
        config = ClassConfig(tuple(branch.config for branch in branches))
        network = fitted(lambda: ClassNetwork(config), tensors)
    except (CheckpointError, InputError) as error:
        raise CheckpointError(f"{name} looks like ClassSR, but {error}") from None
    assert isinstance(network, ClassNetwork)
    return network.eval().requires_grad_(False)
