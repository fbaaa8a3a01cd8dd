"""-M as a file that other runtimes read: ONNX, torch.export and ExecuTorch (extra ``export``)."""

from __future__ import annotations

import os
from pathlib import Path

from ..checkpoints import load_checkpoint
from ..errors import InputError
from ..networks import SRNetwork
from ..networks.amount import Amount
from ..system.files import whole_file
from .formats import FORMATS
from .graph import graph_of
from .program import facts, trace

__all__ = ["FORMATS", "LARGEST", "export_model"]

LARGEST = 1024  # sides of the largest image of an ExecuTorch program, unless said otherwise


def export_model(
    model: str | os.PathLike | SRNetwork,
    path: str | os.PathLike,
    *,
    k: int | None = None,
    fraction: float | None = None,
    format: str | None = None,
    largest: tuple[int, int] = (LARGEST, LARGEST),
    scale: int | None = None,
) -> dict[str, object]:
    """Write -M of a model, or a whole network, as one graph, all of it or nothing; returns what it says of itself.

    The graph takes a float32 image (1, 3, H, W) in [0, 1], any H and W, and returns (1, 3, sH, sW) in [0, 1]: what
    ``MaskGuidedSR`` makes of it in float32. Selection is inside: K is ``k``, clamped to the number of cells, or
    ``fraction`` of the cells, by default the model's own K; a whole network has none.

    ``model``: a shipped model, a file of weights, or a network. ``format``: "onnx", "pt2" (torch.export) or
    "pte" (ExecuTorch), by default what the name of the file ends with. ``largest``, height and width of the largest
    image, matters for "pte" alone, whose memory is planned beforehand. ``scale`` is that of a file which does not tell
    it. InputError for an amount, a format or a model
    that cannot be exported, a package that is missing, or a file that cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".") if format is None else format
    if kind not in FORMATS:
        what = f"format {format!r}" if format is not None else f"the name {path.name}"
        raise InputError(f"export: {what} does not say how to export; choose one of {', '.join(FORMATS)}")
    amount = Amount(k, fraction)
    network = model if isinstance(model, SRNetwork) else load_checkpoint(model, scale=scale)
    graph_of(network, amount)  # so that nobody installs packages for a model that has no graph
    require, write = FORMATS[kind]
    require()
    with whole_file(path) as stream:  # first, so that a folder that cannot be written to is known before the work
        known = facts(network, amount)
        write(trace(network, amount, largest if kind == "pte" else None), known, stream)
    return known
