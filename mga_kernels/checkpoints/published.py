"""Reading published checkpoints, .pth, .pt and .safetensors, without executing them and within bounded memory."""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError
from .pickles import unneeded

# In this order: weights averaged over training are the better ones.
WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "generator", "net_g", "model", "net")
PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile
PARTS = ("generator.", "net_g.", "netG.", "model.", "net.")  # of a file that may hold other networks beside this one
DEEPEST = 4  # wrappers in each other
NO_MEMORY = "can't allocate memory"  # of PyTorch's allocator
LARGEST = 1 << 30  # bytes of a file: many times the largest of the networks, with what an optimiser keeps


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Tensors by name of a .pth, .pt or .safetensors file, on the CPU, with the usual wrappers and prefixes stripped.

    Of a pickle only tensors are read (``weights_only=True``); a file that asks for anything else is refused, as is one
    whose tensors are more than what the file holds. CheckpointError for both, and for one that is no checkpoint.
    """
    name = f"checkpoint: {os.fspath(path)}"
    path = Path(path)
    _check_file(path, name)
    state = _read_safetensors(path, name) if _is_safetensors(path) else _read_pickle(path, name)
    return check_tensors(strip(state), name, path.stat().st_size)


def _check_file(path: Path, name: str) -> None:
    """What can be said without loading: size, and that an archive holds no more than it seems to."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            archive = stream.read(4) == b"PK\x03\x04"
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint: there is no file {path}") from None
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {error.strerror}") from None
    if size == 0:
        raise CheckpointError(f"{name} is empty")
    if size > LARGEST:
        raise CheckpointError(f"{name} has {size / 2**30:.1f} GiB, more than any network that is supported; refused")
    if not archive:
        return
    try:
        with zipfile.ZipFile(path) as content:
            entries = content.infolist()
    except Exception as error:  # whatever a damaged archive leads to
        raise CheckpointError(f"{name} is damaged: {_reason(error)}") from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(e.file_size for e in entries) > size:
        raise CheckpointError(f"{name} is an archive that grows when it is unpacked, as no checkpoint does; refused")


def _is_safetensors(path: Path) -> bool:
    """By its beginning, the length of a JSON text; the name decides where the file is too short or damaged."""
    with path.open("rb") as stream:
        head = stream.read(9)
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{" and head[4:8] == bytes(4))


def _read_safetensors(path: Path, name: str) -> Mapping[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key).clone() for key in file.keys()}
    except (SafetensorError, OSError, ValueError, MemoryError, RuntimeError) as error:
        raise CheckpointError(f"{name} is not a complete safetensors file ({_reason(error)})") from None


def _read_pickle(path: Path, name: str) -> Any:
    try:
        foreign = unneeded(path)
        if foreign is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of formats that are no longer written
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # whose text recommends to run the file
        raise CheckpointError(f"{name} is damaged or no checkpoint: PyTorch cannot read it as tensors alone") from None
    except Exception as error:  # a damaged file can end the unpickler in any way
        raise CheckpointError(f"{name} is damaged or no checkpoint: {_reason(error)}") from None
    raise CheckpointError(
        f"{name} is no plain dictionary of tensors: it asks for {foreign}; nothing of it was run; "
        "save its state_dict() alone"
    )


def _reason(error: Exception) -> str:
    """Its first sentence; those after it are PyTorch's advice to its developers."""
    if NO_MEMORY in str(error):
        return "it declares more memory than there is"
    return re.split(r"\.\s", (str(error).strip() or type(error).__name__).splitlines()[0])[0].rstrip(".")


def strip(state: Any) -> Any:
    """The state dict inside the usual wrappers, its names without the usual prefixes."""
    for _ in range(DEEPEST):
        inner = next((state[w] for w in WRAPPERS if isinstance(state, Mapping) and _is_mapping(state.get(w))), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        return state
    for _ in range(DEEPEST):
        names = list(state)
        for prefix in (*PREFIXES, *PARTS):
            inside = [key for key in names if key.startswith(prefix)]
            if inside and (len(inside) == len(names) or prefix in PARTS[:3]):
                state = {key.removeprefix(prefix): state[key] for key in inside}
                break
        else:
            break
    return state


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and len(value) > 0


def check_tensors(state: Any, name: str, size: int) -> dict[str, Tensor]:
    """The state dict, if it is one of ordinary tensors with finite values that fit into ``size`` bytes.

    A pickle can declare a tensor of any shape over a few bytes, all of whose elements are the same.
    """
    if not isinstance(state, Mapping) or not state or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{name} holds no dictionary of tensors")
    if not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{name} holds tensors whose names are no texts")
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise CheckpointError(f"{name}: {key} is no ordinary tensor (sparse, quantised or without values); refused")
    # Storages, too, say their size without having it.
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state.values()}
    declared = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if sum(held.values()) > size or declared > size:
        most = max(declared, sum(held.values()))
        raise CheckpointError(f"{name} declares {most:,} bytes of tensors and has {size:,}; refused")
    for key, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{name} is damaged: tensor {key} holds NaN or infinity")
    return dict(state)
