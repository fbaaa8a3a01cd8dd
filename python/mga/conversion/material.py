"""What a conversion that trains is made of, and the folder in which it goes on after it was stopped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from mga_kernels.system.files import writable_folder

from ..files.claim import claim_folder, flat
from ..files.records import Record
from ..training.packs import Pair
from ..training.schedule import Plan
from .settings import Training


@dataclass
class Material:
    """``train``: groups of pairs (HR, LR), which are drawn from equally often. ``made_by``: what the file will say too.

    ``original``: what the published network's file and the options say of it together. ``folder`` holds what the
    conversion was begun with, the planned iterations, and a state for each step.
    """

    train: list[list[Pair]]
    held_out: list[Pair]
    folder: Path
    minutes: float
    training: Training = field(default_factory=Training)
    made_by: Record = field(default_factory=dict)
    original: Record = field(default_factory=dict)

    def claim(self) -> Plan:
        """The planned iterations; InputError where the folder is that of another conversion."""
        begun = self.made_by | {"minutes": self.minutes, "images": fingerprint(self.train)}
        begun |= {"held-out images": fingerprint([self.held_out])} | self.training.changed()
        begun |= flat({"original": self.original})
        writable_folder(self.folder)
        remedy = "go on with that one, remove the folder or choose another -o"
        claim_folder(self.folder / "conversion.json", begun, "convert", remedy)
        return Plan(self.folder / "iterations.json")

    def facts(self) -> Record:
        """What a file says of it."""
        return self.made_by | {"minutes": self.minutes, "images": sum(map(len, self.train)), **self.training.changed()}


def fingerprint(groups: list[list[Pair]]) -> str:
    """Of pixels, those of the HR images too."""
    digest = hashlib.sha256()
    for hr, lr in (pair for group in groups for pair in group):
        digest.update(repr((hr.shape, lr.shape)).encode() + hr.tobytes() + lr.tobytes())
    return digest.hexdigest()
