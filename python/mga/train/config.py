"""Configuration files: TOML tables as typed dataclasses, those of ``mga train`` and of ``mga evaluate``."""

from __future__ import annotations

import dataclasses
import os
import tomllib
import typing
from pathlib import Path

from mga_kernels.errors import InputError

from .recipe import Recipe


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
    """A TOML file as a table; ``overrides`` maps dotted names ("mask.iterations") to TOML values as text."""
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


def load_config(path: str | Path, overrides: dict[str, str] | None = None) -> Recipe:
    """The recipe in a TOML file, checked."""
    values = read_table(path, overrides)
    if values.get("recipe") == "refine-only":
        raise InputError(
            'train: the recipe "refine-only" is no more; `mga convert CKPT --extend N` gives a published network a '
            'Refine-Net and a mask, and the recipe "three-step" trains a network as a whole'
        )
    recipe: Recipe = build(Recipe, values, "config")
    recipe.check()
    return recipe
