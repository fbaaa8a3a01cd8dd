"""Reading published checkpoints, .pth, .pt and .safetensors, without executing them and within bounded memory."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError, CheckpointNote
from ..notices import warn
from ..system.texts import AGAIN, shown
from .class_files import places_of_classes
from .foreign import foreign_network
from .inside import Part, best, find_networks, guess, tensors_of
from .kinds import STATE, kind_of, text_kind
from .mask_guided import places_of_mask_guided
from .normed import put_together
from .pickles import Refused, kind_of_pickle, read_pickle
from .recognise import places_of_networks

COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NO_MEMORY = "can't allocate memory"  # of PyTorch's allocator
LARGEST = 1 << 30  # bytes of a file: many times the largest of the networks, with what an optimiser keeps
LARGEST_STATED = 1 << 50  # bytes that a safetensors file is believed to have had
LONGEST = 8 << 20  # bytes of the list of tensors that a larger file is named by
PYTORCH = (b"PK\x03\x04", b"\x80\x02")  # how its files begin, archives and others
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how PyTorch's files begin that are no archives
TRAINING = ("state", "param_groups", "optimizers", "schedulers", "optimizer", "optimizer_states", "lr_schedulers")


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Tensors of the network in a .pth, .pt, .ckpt or .safetensors file by its own names, on the CPU.

    What programs of training put around a network is taken off, and what lies beside it left out (``inside``). Of
    several networks that are known, the generator is taken, and of the same one its average over the training; a
    CheckpointNote says so. Of a pickle only tensors are read (``pickles``). CheckpointError for a file that
    is a program, whose tensors are more than what the file holds, that holds several networks none of which is to be
    preferred, or no tensors; where it is something else, the error says what (``kinds``).
    """
    name = f"checkpoint: {os.fspath(path)}"
    path = Path(path)
    _check_file(path, name)
    content, without = (_read_safetensors(path, name), None) if _is_safetensors(path) else _read_pickle(path, name)
    try:
        tensors = tensors_of(content)
        parts = find_networks(tensors, _places)
    except CheckpointError as error:
        raise CheckpointError(f"{name} is no checkpoint of one network: {error}") from None
    size = path.stat().st_size
    if parts:
        return _one_of(parts, name, size)
    state = guess(tensors)
    keys = [key for key in content if key in TRAINING] if isinstance(content, Mapping) else []
    if keys and (not state or "param_groups" in keys):
        what = f"the state of a training ({', '.join(keys)}) and no network; give the file of its weights"
        raise CheckpointError(f"{name} holds {what}")
    if not tensors:
        raise CheckpointError(f"{name} {without or f'holds no dictionary of tensors; {STATE}'}")
    return check_tensors(state or tensors, name, size)


def _places(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    names = frozenset(names)
    return places_of_networks(names) | places_of_mask_guided(names) | places_of_classes(names)


def _one_of(parts: list[Part], name: str, size: int) -> dict[str, Tensor]:
    chosen = best(parts)
    states = [put_together(check_tensors(part.state, name, size), name) for part in chosen]
    if not all(_equal(state, states[0]) for state in states[1:]):
        places = [shown(str(part)) for part in chosen[:3]] + (["more"] if len(chosen) > 3 else [])
        raise CheckpointError(
            f"{name} holds several networks, {', '.join(places[:-1])} and {places[-1]}, and does not tell which one is "
            "meant; save the state_dict of that one alone in a file of its own"
        )
    others = [part for part in parts if part.rank > chosen[0].rank and not part.rank[0]]
    if others:
        why = ", which is averaged over the training" if chosen[0].averaged else ""
        rest = ", ".join(shown(str(part)) for part in others[:3])
        warn(f"{name}: taken is {shown(str(chosen[0]))}{why}, not {rest}", CheckpointNote)
    return states[0]


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())


def _check_file(path: Path, name: str) -> None:
    """What can be said without loading: what it is, its size, and that an archive holds no more than it seems to."""
    try:
        size = path.stat().st_size
        kind = _kind_of_large(path) if size > LARGEST and path.is_file() else kind_of(path)
        archive = kind is None and zipfile.is_zipfile(path)
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint: there is no file {path}") from None
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {error.strerror}") from None
    if kind is not None:
        raise CheckpointError(f"{name} is {kind}")
    if size > LARGEST:
        raise CheckpointError(f"{name} has {size / 2**30:.1f} GiB, more than any network that is supported; refused")
    if archive:
        _check_archive(path, name, size)


def _check_archive(path: Path, name: str, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as content:
            entries = content.infolist()
    except Exception as error:  # whatever a damaged archive leads to
        raise CheckpointError(f"{name} is damaged: {_reason(error)}") from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or sum(e.file_size for e in entries) > size:
        raise CheckpointError(f"{name} is an archive that grows when it is unpacked, as no checkpoint does; refused")


def _kind_of_large(path: Path) -> str | None:
    """``kind_of`` without reading what grows with the size of the file."""
    with path.open("rb") as stream:
        head = stream.read(9)
    if head.startswith(b"PK") or not any(head):
        return None
    if head[4:] != bytes(4) + b"{":  # no safetensors
        return kind_of(path)
    if int.from_bytes(head[:8], "little") > LONGEST:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return foreign_network(file.keys())
    except (SafetensorError, OSError, ValueError):
        return None


def _is_safetensors(path: Path) -> bool:
    """By its beginning, the length of a JSON text, or that of PyTorch's files under another name.

    The name decides where the file is too short or damaged.
    """
    with path.open("rb") as stream:
        head = stream.read(9)
    if len(head) == 9 and head[8:] == b"{" and head[4:8] == bytes(4):
        return True
    return path.suffix == ".safetensors" and not head.startswith(PYTORCH)


def _read_safetensors(path: Path, name: str) -> Mapping[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key).clone() for key in file.keys()}
    except (SafetensorError, OSError, ValueError, MemoryError, RuntimeError) as error:
        reason = _cut_off(path) or text_kind(path)
        if reason is not None:
            raise CheckpointError(f"{name} is {reason}") from None
        raise CheckpointError(f"{name} is not a complete safetensors file ({_reason(error)}); {AGAIN}") from None


def _cut_off(path: Path) -> str | None:
    """What is to be said of a safetensors file that ends too early, as far as its beginning says how long it is."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        begins = stream.read(1) == b"{"
        if not begins or length > LONGEST:
            return None
        header = b"{" + stream.read(length - 1)
    if 8 + length > size:
        return f"cut off within its list of tensors, so not a complete safetensors file; {AGAIN}"
    try:
        ends = [entry["data_offsets"][1] for key, entry in json.loads(header).items() if key != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None
    if not size < whole <= LARGEST_STATED:
        return None
    return f"cut off: it has {size:,} of {whole:,} bytes, so it is not complete; {AGAIN}"


def _read_pickle(path: Path, name: str) -> tuple[Any, str | None]:
    """What is in it, and what is to be said where that has no tensors."""
    try:
        content, asked = read_pickle(path)
    except Refused as refused:
        raise CheckpointError(f"{name} is {_asking(str(refused))}") from None
    except Exception as error:  # a damaged file can end the reader in any way
        kind = _kind_of_unread(path)
        if kind is not None:
            raise CheckpointError(f"{name} is {kind}") from None
        raise CheckpointError(f"{name} is damaged or no checkpoint: {shown(_reason(error))}; {AGAIN}") from None
    return content, None if asked is None else f"is {_asking(asked)}"


def _asking(asked: str) -> str:
    what = f"{kind_of_pickle(asked)}: it asks for {shown(asked)}; nothing of it was run"
    return f"{what}; save its state_dict() alone where it was made"


def _kind_of_unread(path: Path) -> str | None:
    with path.open("rb") as stream:
        if stream.read(len(LEGACY)) == LEGACY:
            return f"an incomplete or damaged file of PyTorch; {AGAIN}"
    return text_kind(path)


def _reason(error: Exception) -> str:
    """Its first sentence; those after it are PyTorch's advice to its developers."""
    if NO_MEMORY in str(error):
        return "it declares more memory than there is"
    return re.split(r"\.\s", (str(error).strip() or type(error).__name__).splitlines()[0])[0].rstrip(".")


def check_tensors(state: object, name: str, size: int) -> dict[str, Tensor]:
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
    wide = {key: widened(tensor, f"{name}: {shown(key)}") for key, tensor in state.items()}
    for key, tensor in wide.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{name} is damaged: tensor {shown(key)} holds NaN or infinity")
    return wide


def widened(tensor: Tensor, name: str) -> Tensor:
    """Numbers of 8 bits, with which PyTorch does not compute, as float32. CheckpointError for those of fewer bits."""
    if not tensor.is_floating_point() or tensor.dtype in COMPUTED:
        return tensor
    try:
        return tensor.float()
    except RuntimeError:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(f"{name} is of {kind}, which is not read; save it as float16 or float32") from None
