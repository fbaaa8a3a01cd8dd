"""Words of commands and of configurations as values: a split, a K, a size are read in one way wherever they stand."""

from __future__ import annotations

import re

from mga_kernels.errors import InputError

SPLIT = "the blocks of Base-Net and Refine-Net, each 1 or more, such as 4+2"


def parse_split(text: str) -> tuple[int, int]:
    """ "4+2" -> (4, 2): blocks of the Base-Net and of the Refine-Net; InputError for anything else."""
    found = re.fullmatch(r"([1-9]\d{0,3})\+([1-9]\d{0,3})", text, re.ASCII)
    if not found:
        raise InputError(f"model: split must be {SPLIT}, got {text!r}")
    return int(found[1]), int(found[2])


def amount(item: object) -> tuple[int | None, float | None]:
    """(k, fraction), of which one is None: 240 and "240" are K, "50%" is a share of the cells, "all" is all of them."""
    text = str(item).strip()
    if isinstance(item, (int, str)) and not isinstance(item, bool):
        if text == "all":
            return None, 1.0
        if re.fullmatch(r"\d+", text, re.ASCII):
            return int(text), None
        if re.fullmatch(r"\d+(\.\d+)?%", text, re.ASCII) and float(text[:-1]) <= 100:
            return None, float(text[:-1]) / 100
    raise InputError(f'evaluate: K is a number such as 240, a share such as "50%", or "all"; got {item!r}')


def parse_size(text: str, command: str = "") -> tuple[int, int]:
    """ "3840x2160" -> (3840, 2160): width and height in pixels; InputError for anything else."""
    found = re.fullmatch(r"([1-9]\d{0,5})[xX×]([1-9]\d{0,5})", text, re.ASCII)
    if not found:
        before = f"{command}: " if command else ""
        raise InputError(f"{before}a size is WIDTHxHEIGHT in pixels, such as 3840x2160, got {text!r}")
    return int(found[1]), int(found[2])
