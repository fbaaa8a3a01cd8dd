"""Records of measurements as JSON whose changes can be read: a row of figures is a line."""

from __future__ import annotations

import json
import math
from typing import Any


def to_json(record: Any, levels: int = 2) -> str:
    """``record`` as JSON, its ``levels`` outermost levels a line for each entry; what is deeper stands on one line.

    So does what holds numbers and texts only. Infinity and NaN, which JSON has not, are null.
    """
    return _text(_finite(record), levels, "\n") + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
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
