"""What is kept in a folder between runs: noted when a run begins, compared when it goes on.

Otherwise what another run has left would be taken up in silence, and weights would say that they were made by a recipe
that they were not made by. Files count by their content, so that they may be moved and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import nn

from mga_kernels.errors import InputError, reason_of
from mga_kernels.system.marks import marked

from .records import Record, write_text

FORMAT = 2  # of a record; the first noted a part of a recipe
SHOWN = 3  # differences that are named; of more, only how many


def claim_folder(record: Path, facts: Record, command: str, remedy: str, write: bool = True) -> None:
    """Note ``facts``, which JSON can hold, in the file ``record``; InputError where it notes others, naming them.

    Only ``write`` makes the file. What lies in a folder without a record counts as made of these facts.
    """
    facts = json.loads(json.dumps(facts))  # as the file returns them
    try:
        found = json.loads(record.read_text())
        whole = found.pop("format", None) == FORMAT
    except FileNotFoundError:
        if write:
            write_text(record, json.dumps({"format": FORMAT} | facts, indent=1))
        return
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{command}: {record} cannot be read ({error}); {remedy}") from None
    if not whole:
        raise InputError(
            f"{command}: {record.parent} holds a run of an older version, which noted only a part of what it was made "
            f"by; if all of it is as it was, remove {record.name} there to go on, or else {remedy}"
        )
    differing = [name for name in found | facts if found.get(name) != facts.get(name)]
    if differing:
        named = [f"{name} = {_text(found, name)}, this one has {_text(facts, name)}" for name in differing[:SHOWN]]
        more = f"; {len(differing) - SHOWN} more differ" if len(differing) > SHOWN else ""
        raise InputError(f"{command}: {record.parent} holds a run with {'; '.join(named)}{more}; {remedy}")


@contextmanager
def held_folder(folder: Path, otherwise: str) -> Iterator[None]:
    """``hold_folder`` until the block ends."""
    place = hold_folder(folder, otherwise)
    try:
        yield
    finally:
        if place is not None:
            os.close(place)


def hold_folder(folder: Path, otherwise: str) -> int | None:
    """Make ``folder`` if need be and keep other runs out of it until what is returned is closed (``os.close``).

    InputError ``otherwise`` where another run has it. A run that is killed holds nothing. None where the system or the
    disk has no such marks: then two runs are not told from one.
    """
    while True:
        folder.mkdir(exist_ok=True)
        try:
            place = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another run has ended meanwhile, and removed it
            continue
        except OSError:  # Windows opens no folders
            return None
        ours = marked(place)
        with suppress(FileNotFoundError):
            if ours and os.path.samestat(os.fstat(place), os.stat(folder)):
                return place
        os.close(place)
        if ours is None:
            return None
        if not ours:
            raise InputError(otherwise)


def _text(facts: Record, name: str) -> str:
    return str(facts[name]) if name in facts else "none"


def flat(settings: Record, before: str = "") -> Record:
    """The settings of tables in tables under dotted names, as ``--set`` takes them."""
    result: Record = {}
    for name, value in settings.items():
        result |= flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return result


def content_of(path: str | Path, command: str) -> str:
    """Stands for what is in a file; InputError where it cannot be read, or is no file, such as a pipe."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise InputError(f"{command}: {path} is not a regular file")
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except OSError as problem:
        raise InputError(f"{command}: {path} cannot be read: {reason_of(problem)}") from None


def weights_of(*modules: nn.Module) -> str:
    """Stands for the weights of modules, whatever file they were in."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
