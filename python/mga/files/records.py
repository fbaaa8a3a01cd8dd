"""Records of measurements as JSON whose changes can be read: a row of figures is a line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from mga_kernels.system.files import whole_file

Record = dict[str, Any]  # what JSON holds, by name


def to_json(record: object, levels: int = 2) -> str:
    """``record`` as JSON, its ``levels`` outermost levels a line for each entry; what is deeper stands on one line.

    So does what holds numbers and texts only. Infinity and NaN, which JSON has not, are null.
    """
    return _text(_finite(record), levels, "\n") + "\n"


def finite(record: Record) -> Record:
    """``record`` with None for infinity, which is the PSNR of equal images, and for NaN: JSON has neither."""
    return {name: _finite(value) for name, value in record.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return finite(value)
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: Any, levels: int, line: str) -> str:
    within = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if levels == 0 or not any(isinstance(each, dict | list) for each in within):
        return json.dumps(value, allow_nan=False)
    texts = [_text(each, levels - 1, f"{line} ") for each in within]
    if isinstance(value, dict):
        texts = [f"{json.dumps(str(key))}: {text}" for key, text in zip(value, texts, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}{line} " + f",{line} ".join(texts) + f"{line}{closing}"


def write_text(path: Path, text: str) -> None:
    """The file appears whole or not at all; what is no text in it, such as names of files may hold, is escaped."""
    with whole_file(path) as stream:
        stream.write(text.encode(errors="backslashreplace"))
