"""The networks of the package, a line each. No other file in it names them. And where the models are that ship.

A name is that of a folder of ``architectures``, whose ``NETWORK`` is made when it is asked for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ARCHITECTURES = (
    "fsrcnn",
    "pan",
    "rfdn",
    "srresnet",
    "rcan",
    "imdn",
    "simplified_imdn",
    "msrresnet",
    "rrdbnet",
    "compact",
    "span",
    "edsr",
)
SMALL = "compact"  # makes the coarse image where a published network refines regions
FOLDER = f"{__package__}.architectures"
Facts = dict[str, Any]  # as JSON holds them
SHIPPED = Path(__file__).resolve().parent / "weights"


def shipped_models() -> dict[str, Path]:
    """Name -> file of the models that come with the package."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"))}


def written_in(path: Path) -> Facts:
    """What a model file that ships says of itself: "form" (None of a mask-guided one) and "config", without PyTorch.

    ``checkpoints.read_metadata`` reads those of users, which may be damaged.
    """
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    said = header["__metadata__"]
    return {"form": said.get("form"), "config": json.loads(said["config"])}
