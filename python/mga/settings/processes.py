"""Which of how many processes this one is, as ``torchrun`` and its like tell them by environment variables."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from mga_kernels.errors import InputError


@dataclass(frozen=True)
class Share:
    """This process is number ``rank`` of ``world``, counted from 0."""

    rank: int
    world: int


def share_of_all() -> Share:
    """Among all processes, by RANK and WORLD_SIZE; the only one where neither is set.

    InputError for what is no such number: work would be left out without a word.
    """
    return _share("RANK", "WORLD_SIZE", Share(0, 1))


def share_of_machine() -> Share:
    """Among those on this machine, by LOCAL_RANK and LOCAL_WORLD_SIZE; where these are not set, among all."""
    return _share("LOCAL_RANK", "LOCAL_WORLD_SIZE", share_of_all())


def _share(rank: str, world: str, otherwise: Share) -> Share:
    found = Share(_number(rank, 0, otherwise.rank), _number(world, 1, otherwise.world))
    if found.rank >= found.world:
        said = ", ".join(f"{name}={os.environ.get(name) or 'not set'}" for name in (rank, world))
        raise InputError(
            f"{said}: of so many processes none has this number; set both, as torchrun does, or neither of them"
        )
    return found


def _number(name: str, least: int, otherwise: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return otherwise
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or int(text) < least:
        raise InputError(f"{name}={text}: expected a whole number of {least} or more, as torchrun sets it, or none")
    return int(text)
