"""Training configuration: one TOML file, every field typed and documented here.

``TrainConfig`` is the recipe "refine-only": a Refine-Net and a mask for a published Base-Net that stays as it is. The
paper's own training, "three-step", is configured by ``mga.train.recipe.Recipe``.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path

from mga_kernels.errors import InputError
from mga_kernels.networks import ModelConfig

from ..model_options import parse_split
from .recipe import Recipe


@dataclass
class Folder:
    """HR images for training."""

    path: str
    shrink: list[int] = field(default_factory=lambda: [1])  # use each image at 1/n of its size, for each n
    holdout: int = 0  # the last n images (by name) are for validation only


@dataclass
class Refine:
    """Step 2 of section 3.5: the trunk of the Refine-Net on cropped feature patches, Base-Net and tail frozen."""

    iterations: int = 20000
    cells_per_batch: int = 768  # 12 crops of 32 x 32 LR pixels at p = 4
    learning_rate: float = 2e-4
    final_learning_rate: float = 1e-7
    warmup: int = 500
    hard_share: float = 0.5  # share of a batch drawn in proportion to the error of the coarse image
    loss: str = "l1"  # "l1" (the paper) or "l2"
    ema_decay: float = 0.999


@dataclass
class Mask:
    """Step 3 of section 3.5: the MP module alone, by l1 against |coarse - all| on luma."""

    iterations: int = 4000
    crops_per_batch: int = 16
    views: int = 2  # how many of the cached views of each image are used
    crop: int = 64  # side of a crop in LR pixels
    learning_rate: float = 4e-4
    final_learning_rate: float = 1e-7
    warmup: int = 200
    classes: int = 2
    order: str = "softmax-then-pool"
    filter_source: str = "probability"
    ema_decay: float = 0.999
    target_quantile: float = 0.95  # the mean cell difference at this quantile of the training cells is mask value 1


@dataclass
class TrainConfig:
    """A whole run. Paths may contain environment variables; relative ones are taken from the current folder.

    What section 4.4 of the paper varies are ``patch_size`` (Table 6), ``split`` (Table 5), ``selection`` (Table 7),
    ``k``, and ``classes`` of the mask (Table 3); the defaults are the paper's.
    """

    network: str
    scale: int
    base: str  # published checkpoint of the Base-Net
    out: str  # folder for the feature cache, the resumable state and the result
    folders: list[Folder]
    recipe: str = "refine-only"
    patch_size: int = 4
    split: str = ""  # blocks of Base-Net and Refine-Net, as in "4+2"; empty: those of the paper
    selection: str = "largest"  # which cells the trained model refines: "largest", "smallest" or "random"
    k: int = 0  # how many of them, unless a call says otherwise; 0: the paper's 16,000 / p^2
    views: int = 8  # how many of its 8 views (flips, rotations, shifts of the LR grid) of each image are cached
    # Photographs differ in sharpness from those that the Base-Net was trained on. With this setting, what a linear
    # filter fitted to one image explains of its residual is taken off the target, so that only the rest is learned.
    normalise: bool = True
    seed: int = 0
    device: str = "auto"
    bf16: bool = True  # bf16 arithmetic in the trunk of the Refine-Net; weights stay fp32
    save_every: int = 500
    initial: str = ""  # weights file whose Refine-Net training starts from, instead of the identity
    refine: Refine = field(default_factory=Refine)
    mask: Mask = field(default_factory=Mask)
    licence: dict[str, str] = field(default_factory=dict)  # notices stored with the weights, by subject

    def model_config(self) -> ModelConfig:
        """What the trained model is; InputError for settings that no network has."""
        split = parse_split(self.split) if self.split else ()
        mask = {name: getattr(self.mask, name) for name in ("classes", "order", "filter_source")}
        return ModelConfig(self.network, self.scale, self.patch_size, self.k, split, self.selection, mask=mask)


def build(cls: type, values: dict, where: str, command: str = "train"):
    """Fill a dataclass from a TOML table, refusing unknown keys and wrong types; ``command`` is named in the error."""
    if not isinstance(values, dict):
        raise InputError(f"{command}: {where} must be a table, got {values!r}")
    hints = typing.get_type_hints(cls)
    unknown = set(values) - set(hints)
    if unknown:
        raise InputError(f"{command}: unknown setting {where}.{min(unknown)}; known: {', '.join(sorted(hints))}")
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{command}: {where}.{missing[0]} is missing; add it to the configuration")
    return cls(**{name: _convert(hints[name], value, f"{where}.{name}", command) for name, value in values.items()})


def _convert(kind, value, where: str, command: str):
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where, command)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is list and isinstance(value, list):
        return [_convert(args[0], item, f"{where}[{i}]", command) for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {str(key): _convert(args[1], item, f"{where}.{key}", command) for key, item in value.items()}
    if kind is float and type(value) is int:
        return float(value)
    if kind is str and isinstance(value, str):
        expanded = os.path.expandvars(value)
        if "${" in expanded:
            raise InputError(f"{command}: {where} = {value!r} names an environment variable that is not set")
        return expanded
    if origin is None and type(value) is kind:
        return value
    raise InputError(f"{command}: {where} must be of type {getattr(kind, '__name__', kind)}, got {value!r}")


def read_table(path: str | Path, overrides: dict[str, str] | None = None, command: str = "train") -> dict:
    """A TOML file as a table; ``overrides`` maps dotted names ("refine.iterations") to TOML values as text."""
    try:
        values = tomllib.loads(Path(path).read_text())
    except FileNotFoundError:
        raise InputError(f"{command}: there is no configuration file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{command}: {path} is not a readable TOML file: {error}") from None
    for name, text in (overrides or {}).items():
        *parents, last = name.split(".")
        table = values
        for parent in parents:
            table = table.setdefault(parent, {})
        try:
            table[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            table[last] = text
    return values


def load_config(path: str | Path, overrides: dict[str, str] | None = None) -> TrainConfig | Recipe:
    """The configuration in a TOML file, of the kind that its setting ``recipe`` names."""
    values = read_table(path, overrides)
    recipe = values.get("recipe", "three-step")
    if recipe == "three-step":
        three_step: Recipe = build(Recipe, values, "config")
        three_step.check()
        return three_step
    if recipe != "refine-only":
        raise InputError(f'train: config.recipe must be "three-step" or "refine-only", got {recipe!r}')
    config: TrainConfig = build(TrainConfig, values, "config")
    config.model_config()
    if not config.folders:
        raise InputError("train: config.folders is empty; name at least one folder of HR images")
    if not 1 <= config.views <= 8:
        raise InputError(f"train: config.views must be 1 to 8, got {config.views}")
    if config.refine.loss not in ("l1", "l2"):
        raise InputError(f'train: config.refine.loss must be "l1" or "l2", got {config.refine.loss!r}')
    return config
