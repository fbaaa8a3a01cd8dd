"""What a suite compares: one TOML file for ``mga evaluate``, every field typed and documented here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mga_kernels.errors import InputError
from mga_kernels.networks import VARIANTS
from mga_kernels.networks.whole import SCALES
from mga_kernels.ops.select_patches import SELECTIONS

from ...settings.toml import load
from ...settings.values import amount, parse_size
from ..testsets import ImageSet, find_sets, one_set

WAYS = ("tensors", "photographs")


@dataclass
class ModelEntry:
    """A model. A published whole network has one row; ``colour`` to ``model_scale`` say what its tensors do not."""

    name: str  # in the table
    file: str  # a shipped model, a file that `mga train` wrote, or a published one
    colour: str = ""
    input_range: str = ""
    model_scale: int = 0
    variants: list[str] = field(default_factory=list)  # its own instead of the suite's


@dataclass
class SetEntry:
    """A test set whose folders are in no usual layout."""

    name: str
    hr: str
    lr: str = ""  # empty: made by MATLAB's bicubic


@dataclass
class Suite:
    """Rows are models x variants x K x selection, columns test sets. Paths may contain environment variables."""

    scale: int
    models: list[ModelEntry] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)  # test sets are looked for in these (``mga.evaluation.testsets``)
    only: list[str] = field(default_factory=list)  # names of those to take, in this order; empty: all
    sets: list[SetEntry] = field(default_factory=list)
    variants: list[str] = field(default_factory=lambda: list(VARIANTS))
    k: list[int | str] = field(default_factory=list)  # of -M: numbers, shares ("50%") or "all"; empty: the model's own
    selections: list[str] = field(default_factory=list)  # of -M; empty: the model's own
    seed: int = 0  # of the selection "random"
    bicubic: bool = True  # a row for MATLAB's bicubic
    mask: bool = True  # of -M: the l1 error of the mask and the overlap of its top K with the true one
    size: str = "3840x2160"  # output size of the column GMACs, and of the seconds of photographs
    # "tensors": mean over the images of the sets, as evaluated (PyTorch, no plan); "photographs": a photograph of
    # ``size`` from bytes to bytes in the fastest way that the model has, median of three.
    seconds: str = "tensors"
    # How the images of the sets are made: "tensors", in PyTorch and ``dtype``, or "photographs", from bytes to bytes in
    # the fastest way that the model has.
    images: str = "tensors"
    device: str = "auto"
    dtype: str = "auto"

    def check(self) -> None:
        """InputError for the first setting that does not exist."""
        for name, given, known in (
            ("scale", [self.scale], SCALES),
            ("variants", [*self.variants, *(name for model in self.models for name in model.variants)], VARIANTS),
            ("selections", self.selections, SELECTIONS),
            ("seconds", [self.seconds], WAYS),
            ("images", [self.images], WAYS),
        ):
            for value in given:
                if value not in known:
                    choices = ", ".join(map(str, known))
                    raise InputError(f"evaluate: suite.{name} {value!r} does not exist; choose from {choices}")
        if self.images == "photographs" and self.selections:
            raise InputError("evaluate: photographs take the selection of the model; leave out selections, or images")
        for item in self.k:
            amount(item)
        lr_size(self.size, self.scale)
        if not self.models and not self.bicubic:
            raise InputError("evaluate: the suite names no model; add a table [[models]] with name and file")
        names = [model.name for model in self.models]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"evaluate: the suite has two models called {twice[0]}; rename one")
        if not self.folders and not self.sets:
            raise InputError("evaluate: the suite names no test set; set folders, or add a table [[sets]]")

    def image_sets(self) -> list[ImageSet]:
        """The sets in ``folders`` and the others, files found and paired."""
        found = [one for folder in self.folders for one in find_sets(Path(folder), self.scale)]
        found += [one_set(s.name, Path(s.hr), Path(s.lr) if s.lr else None, self.scale) for s in self.sets]
        by_name: dict[str, ImageSet] = {}
        for one in found:
            if one.name in by_name:
                raise InputError(f"evaluate: the suite has two test sets called {one.name}; rename one")
            by_name[one.name] = one
        if missing := [name for name in self.only if name not in by_name]:
            raise InputError(f"evaluate: there is no test set {missing[0]}, only {', '.join(by_name)}")
        return [by_name[name] for name in self.only or by_name]


def lr_size(size: str, scale: int) -> tuple[int, int]:
    """(width, height) of the LR image of an output size "3840x2160"."""
    width, height = parse_size(size, "evaluate")
    return width // scale, height // scale


def load_suite(path: str | Path, overrides: Mapping[str, str] | None = None) -> Suite:
    """The suite in a TOML file, checked."""
    suite = load(Suite, path, overrides or {}, "suite", "evaluate")
    suite.check()
    return suite
