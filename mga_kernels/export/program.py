"""A network as the ExportedProgram that all formats are written from."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.fx.experimental._config as symbolic
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from ..errors import InputError
from ..modes import ordinary
from ..networks import SRNetwork, WholeNetwork
from ..networks.amount import Amount
from ..runtimes.precision import picture
from ..version import __version__
from .graph import MaskGuidedGraph, WholeGraph, graph_of

EXAMPLE = 37, 45  # neither square nor multiples of p, so that no two sizes in the graph are equal by chance
OTHERS = (5, 3), (50, 39)  # sizes at which the program is compared with the network
TOLERANCE = 1e-5


def facts(network: SRNetwork, amount: Amount) -> dict[str, object]:
    """What a file says about itself."""
    config, version = network.config, f"mga_kernels {__version__}"
    if isinstance(network, WholeNetwork):
        return {"network": config.network, "scale": config.scale, "refined": None, "version": version}
    rule = f"{amount.fraction} of the cells" if amount.fraction is not None else "K, at most the number of cells"
    return {
        "network": config.network,
        "scale": config.scale,
        "patch_size": config.patch_size,
        "halo": network.halo,
        "selection": config.selection,
        "refined": rule,
        "k": None if amount.fraction is not None else config.k if amount.k is None else amount.k,
        "fraction": amount.fraction,
        "version": version,
    }


@ordinary()
def trace(network: SRNetwork, amount: Amount, largest: tuple[int, int] | None = None) -> ExportedProgram:
    """The program of -M, or of a whole network, in float32 for images of any size or of sides up to ``largest``.

    InputError where the network cannot be traced, or its program does not compute at other sizes what it does.
    """
    network = copy.deepcopy(network).float().cpu().eval().requires_grad_(False)
    if largest is not None and not all(limit >= least for limit, least in zip(largest, EXAMPLE, strict=True)):
        raise InputError(f"export: the largest image must be {EXAMPLE[1]}x{EXAMPLE[0]} or more, got {largest}")
    limits = largest or (None, None)
    sides = {axis: Dim(name, min=1, max=limit) for axis, name, limit in zip((2, 3), ("H", "W"), limits, strict=True)}
    graph = graph_of(network, amount).eval()
    try:
        with any_size():
            program = torch.export.export(graph, (picture(*EXAMPLE),), dynamic_shapes={"image": sides})
    except Exception as error:  # the tracer has no class of its own for what a user's network may do
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"export: {network.config.network} cannot be traced for images of any size: {reason}"
        ) from error
    _compare(program, graph)
    return program


@contextmanager
def any_size() -> Iterator[None]:
    """Within it the tracer leaves sizes open.

    It compares them to choose layouts of memory, the number of patches with 1 for instance, and would make a condition
    on the image of each result, although the operators are the same.
    """
    with symbolic.patch(backed_size_oblivious=True), ShapeEnv().suppress_guards():  # type: ignore[attr-defined]
        yield


def _compare(program: ExportedProgram, graph: MaskGuidedGraph | WholeGraph) -> None:
    module = program.module()
    for size in OTHERS:
        image = picture(*size)
        expected, found = graph(image), module(image)
        if found.shape != expected.shape or (found - expected).abs().max() > TOLERANCE:
            name = graph.network.config.network
            raise InputError(
                f"export: the graph of {name} does not compute at other sizes of image what the network does"
            )
