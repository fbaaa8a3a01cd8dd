"""Our format: one safetensors file. Its string metadata holds ``format`` ("mga_kernels"), ``config`` (JSON: network,
scale, patch size, K, value range, settings of the parts), ``licence`` (JSON: notices by subject) and ``training``
(JSON: facts of how the weights were made). The tensors are the state dict of ``MaskGuidedNetwork``, or of
``WholeNetwork`` where ``form`` is "whole", and so on (``CONFIGS``); a whole network's may be float16. Of the form
"black-box" see ``black_box``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..catalogue import shipped_models
from ..errors import CheckpointError, InputError
from ..modes import ordinary
from ..networks import (
    BlackBoxConfig,
    ClassConfig,
    ClassNetwork,
    Config,
    MaskGuidedNetwork,
    ModelConfig,
    RegionConfig,
    RegionNetwork,
    SRNetwork,
    WholeConfig,
    WholeNetwork,
)
from ..system.files import whole_file
from ..system.texts import shown
from .building import without_memory
from .kinds import kind_of

FORMAT = "mga_kernels"
# Forms of networks that are not divided: without a mask, two whole ones of which one refines regions, which is ours or
# not, and several of which a classifier chooses.
WHOLE, REGIONS, BLACK_BOX, CLASSES = "whole", "regions", "black-box", "classes"
CONFIGS: dict[str | None, Any] = {
    None: ModelConfig,
    WHOLE: WholeConfig,
    REGIONS: RegionConfig,
    BLACK_BOX: BlackBoxConfig,
    CLASSES: ClassConfig,
}
MADE_OF: dict[type, Callable[[Any], SRNetwork]] = {
    ModelConfig: MaskGuidedNetwork,
    WholeConfig: WholeNetwork,
    RegionConfig: RegionNetwork,
    ClassConfig: ClassNetwork,
}
Network = TypeVar("Network", bound=SRNetwork)


def find_model(name_or_path: str | os.PathLike) -> Path:
    """The file of a shipped model or of a path; CheckpointError where there is none, InputError for what is no path."""
    shipped = shipped_models()
    if not isinstance(os.fspath(name_or_path) if isinstance(name_or_path, os.PathLike) else name_or_path, str):
        raise InputError(f"model: expected a name or a path, got {type(name_or_path).__name__}")
    if str(name_or_path) in shipped:
        return shipped[str(name_or_path)]
    path = Path(name_or_path)
    if os.path.isfile(path):  # which is false for a name too long, too
        return path
    raise CheckpointError(
        f"model: {str(name_or_path)!r} is neither a shipped model ({', '.join(shipped) or 'none'}) nor an existing file"
    )


def is_native(name_or_path: str | os.PathLike) -> bool:
    """Whether this is a shipped model, or a file of our format."""
    if str(name_or_path) in shipped_models():
        return True
    try:
        if not os.path.isfile(name_or_path):
            return False
        with safe_open(name_or_path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError, ValueError):
        return False


def open_file(path: Path):
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        kind = kind_of(path)
        if kind is not None:
            raise CheckpointError(f"model: {path} is {kind}") from None
        raise CheckpointError(
            f"model: {path} is not a complete safetensors file ({str(error).strip()}); published networks (.pth) run "
            "whole, by MaskGuidedSR.from_checkpoint; give a shipped model's name or a file that `mga train` wrote"
        ) from None


class Metadata(TypedDict):
    """``training``: whatever the command that made the file wrote about it."""

    config: Config
    licence: dict[str, str]
    training: dict[str, Any]


def read_metadata(name_or_path: str | os.PathLike) -> Metadata:
    """What a model file says of itself, without its tensors."""
    path = find_model(name_or_path)
    with open_file(path) as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"model: {path} is a safetensors file of something else (no mask-guided network's configuration inside); "
            "give a file that `mga train` wrote"
        )
    try:
        return {
            "config": CONFIGS[metadata.get("form")].from_json(metadata["config"]),
            "licence": json.loads(metadata["licence"]),
            "training": json.loads(metadata["training"]),
        }
    except (InputError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"model: {path}: {error}") from None


def load_model(name_or_path: str | os.PathLike) -> MaskGuidedNetwork:
    """A mask-guided network, as ``load_native`` has it; CheckpointError for a whole one."""
    network = load_native(name_or_path)
    if not isinstance(network, MaskGuidedNetwork):
        raise CheckpointError(
            f"model: {name_or_path} is {network.config.network} as a whole, without a mask, and a mask-guided model is "
            "expected; `mga models` lists what ships"
        )
    return network


@ordinary()
def load_native(name_or_path: str | os.PathLike) -> SRNetwork:
    """The network in evaluation mode, fp32, on the CPU. CheckpointError where file and network do not fit."""
    path = find_model(name_or_path)
    config = read_metadata(path)["config"]
    if type(config) is BlackBoxConfig:
        from .black_box import load_black_box  # which is made of what is here

        return load_black_box(path, config)
    return filled(path, config, lambda: MADE_OF[type(config)](config))


def filled(path: Path, config: Config, make: Callable[[], Network], prefix: str = "") -> Network:
    """What ``make`` makes of ``config``, with the tensors of the file whose names begin with ``prefix``, float32.

    CheckpointError where they do not fit, and where one has values that are not finite.
    """
    with open_file(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        found = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
        try:
            network = without_memory(make, len(found))
        except CheckpointError as error:
            raise CheckpointError(f"model: {path} does not fit {config.network}: {error}") from None
        wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise CheckpointError(
                    f"model: {path} does not fit {config.network}: tensor {shown(prefix + name)} is "
                    f"{found.get(name, 'missing')} in the file and {wanted.get(name, 'unknown')} in the network"
                )
        # Copies, because a tensor of the file may lie at any address, and sums depend on the alignment in the last bit.
        state = {name: file.get_tensor(prefix + name).to(torch.float32, copy=True) for name in wanted}
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"model: {path} is damaged: tensor {prefix + name} holds NaN or infinity")
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def save_model(
    path: str | os.PathLike,
    network: SRNetwork,
    licence: dict[str, str],
    training: Mapping[str, object],
    half: Collection[str] = (),
) -> None:
    """Write a model file, whole or not at all; the tensors of these names in float16."""
    tensors = {
        name: t.detach().to(torch.float16 if name in half else torch.float32).cpu().contiguous()
        for name, t in network.state_dict().items()
    }
    write_model(path, network.config, tensors, licence, training)


def write_model(
    path: str | os.PathLike,
    config: Config,
    tensors: dict[str, Tensor],
    licence: dict[str, str],
    training: Mapping[str, object],
) -> None:
    """Write a model file of these tensors, whole or not at all."""
    form = next(form for form, kind in CONFIGS.items() if type(config) is kind)
    metadata = ({} if form is None else {"form": form}) | {
        "format": FORMAT,
        "config": config.to_json(),
        "licence": json.dumps(licence, sort_keys=True),
        "training": json.dumps(training, sort_keys=True),
    }
    with whole_file(path) as stream:
        stream.write(save(tensors, metadata))
