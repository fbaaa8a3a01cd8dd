"""The one language of configurations: a TOML file as a typed dataclass, changed by ``--set``, for every command.

A text may hold ``${name}``: a setting at the top of the same file where there is one of this name, which is a number or
a text, or else an environment variable (docs/environment.md). So ``out = "runs/${network}-x${scale}"`` follows
``--set scale=2``.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mga_kernels.errors import InputError

Settings = TypeVar("Settings")
Table = dict[str, Any]  # what TOML can hold, by name


def load(
    kind: type[Settings], path: str | Path | None, overrides: Mapping[str, str], where: str, command: str
) -> Settings:
    """The dataclass ``kind`` from a file (None: from nothing) and from ``--set``; ``where`` is what errors call it.

    InputError, which begins with ``command``, for a file that cannot be read, a name that is unknown or
    missing, and a value of another type.
    """
    return build(kind, read_table(path, overrides, command), where, command)


def build(kind: type[Settings], values: object, where: str, command: str) -> Settings:
    """Fill a dataclass from a table, refusing unknown names and wrong types."""
    if not isinstance(values, dict):
        raise InputError(f"{command}: {where} must be a table, got {values!r}")
    hints = typing.get_type_hints(kind)
    unknown = set(values) - set(hints)
    if unknown:
        raise InputError(f"{command}: unknown setting {where}.{min(unknown)}; known: {', '.join(sorted(hints))}")
    missing = [
        f.name
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{command}: {where}.{missing[0]} is missing; add it to the configuration")
    return kind(**{name: _convert(hints[name], value, f"{where}.{name}", command) for name, value in values.items()})


def _convert(kind: Any, value: object, where: str, command: str) -> object:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
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
    if origin is types.UnionType and type(value) in args:
        return _convert(type(value), value, where, command)
    if origin is None and type(value) is kind:
        return value
    raise InputError(f"{command}: {where} must be of type {getattr(kind, '__name__', kind)}, got {value!r}")


def read_table(path: str | Path | None, overrides: Mapping[str, str], command: str) -> Table:
    """A TOML file as a table; ``overrides`` maps dotted names ("mask.iterations") to TOML values as text."""
    values: Table = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text())
        except FileNotFoundError:
            raise InputError(f"{command}: there is no configuration file {path}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise InputError(f"{command}: {path} is not a readable TOML file: {error}") from None
    for name, text in overrides.items():
        _set(values, name, text, command)
    own = {name: str(v) for name, v in values.items() if type(v) in (int, float) or (type(v) is str and "$" not in v)}
    return {name: _filled(value, own) for name, value in values.items()}


def _set(values: Table, name: str, text: str, command: str) -> None:
    """Change one value; an element of a list is named by its number, counted from 0: "models.0.file"."""
    *parents, last = name.split(".")
    table: Any = values
    for parent in parents:
        if isinstance(table, dict):
            table = table.setdefault(parent, {})
        else:
            table = table[_index(table, parent, name, command)]
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:  # a text without its quotes
        value = text
    table[last if isinstance(table, dict) else _index(table, last, name, command)] = value


def _index(table: object, part: str, name: str, command: str) -> int:
    if isinstance(table, list) and part.isascii() and part.isdecimal() and int(part) < len(table):
        return int(part)
    raise InputError(
        f"{command}: --set {name} leads nowhere: there is no {part!r} where it says; name a setting that exists"
    )


def _filled(value: Any, own: Mapping[str, str]) -> Any:
    """``value`` with the settings that its texts name."""
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+)\}", lambda found: own.get(found[1], found[0]), value)
    if isinstance(value, list):
        return [_filled(item, own) for item in value]
    return {name: _filled(item, own) for name, item in value.items()} if isinstance(value, dict) else value


def overrides_of(words: Iterable[str], command: str) -> dict[str, str]:
    """NAME=VALUE of ``--set`` by name; InputError for a word without an equals sign."""
    found = {}
    for text in words:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise InputError(f"{command}: --set takes NAME=VALUE, got {text!r}")
        found[name] = value
    return found
