"""Records of measurements as JSON whose changes can be read: a row of figures is a line."""

from __future__ import annotations

import json
from typing import Any


def to_json(record: Any, levels: int = 2) -> str:
    """``record`` as JSON, its ``levels`` outermost levels a line for each entry; what is deeper stands on one line.

    So does what holds numbers and texts only. Raises ValueError for numbers that JSON has not, as infinity.
    """
    return _text(record, levels, "\n") + "\n"


def _text(value: Any, levels: int, line: str) -> str:
    within = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    if levels == 0 or not any(isinstance(each, dict | list | tuple) for each in within):
        return json.dumps(value, allow_nan=False)
    texts = [_text(each, levels - 1, f"{line} ") for each in within]
    if isinstance(value, dict):
        texts = [f"{json.dumps(str(key))}: {text}" for key, text in zip(value, texts, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}{line} " + f",{line} ".join(texts) + f"{line}{closing}"
