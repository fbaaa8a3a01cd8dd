"""Hints at the scale of a network whose tensors do not tell it: what the caller expects, and the name of the file."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath

from ..networks.registry import known_names

# Words before the x in names such as spanx4, beside the networks that are known; in others, as in AVX2, max2 or linux4,
# an x belongs to the word.
WORDS = (
    "edsr mdsr carn span esrgan realesrgan bsrgan srgan gan swinir hat dat sr lr hr net model compact plksr realplksr "
    "omnisr scale upscale up bicubic bi div2k df2k"
).split()
NUMBER = r"([1-9][0-9]?)(?:\.0)?"
END = r"(?![0-9]|\.[0-9])"
SIZE = re.compile(r"(?<![0-9])[0-9]+(?:x[0-9]+)+", re.IGNORECASE)  # 1024x768, 3x3
LIST = re.compile(r"(?<![0-9A-Za-z])x([0-9]{1,2})((?:x[0-9]{1,2})+)(?![0-9])", re.IGNORECASE)  # x2x3x4
LARGEST = 16  # x64 and x86 are no scales
HASH_LENGTH = 8  # a run of letters and digits that is so long and changes between them every third time says nothing


@dataclass(frozen=True)
class Hint:
    """A scale, and what speaks for it."""

    scale: int
    by_name: bool = False

    def __str__(self) -> str:
        return f"its name says x{self.scale}" if self.by_name else f"x{self.scale} is asked for"


def hints_at_scale(path: str | os.PathLike, expected: int | None) -> list[Hint]:
    """What the caller expects, before what the name of the file says if that is one number."""
    named = scales_in_name(PurePath(path).name)
    hints = [] if expected is None else [Hint(expected)]
    return [*hints, *(Hint(scale, by_name=True) for scale in named if len(named) == 1)]


def scales_in_name(name: str) -> set[int]:
    """The scales that the name of a file names: x2, _2x, 2x-, X2, -x4plus, 4xNomos, BSRGANx2, scale_2, ×2."""
    text = name.replace("×", "x")
    found = {int(number) for part in LIST.finditer(text) for number in re.findall(r"[0-9]+", part[0])}
    text = SIZE.sub("#", LIST.sub("#", text))
    text = re.sub(r"[0-9A-Za-z]+", lambda run: "#" if _is_hash(run[0]) else run[0], text)
    found |= {int(match[1]) for pattern in _patterns(known_names()) for match in pattern.finditer(text)}
    return {scale for scale in found if scale <= LARGEST}


@functools.cache
def _patterns(networks: tuple[str, ...]) -> tuple[re.Pattern, ...]:
    words = "|".join([*map(re.escape, networks), *WORDS])
    patterns = (
        rf"(?<![0-9A-Za-z])[xX]{NUMBER}{END}",  # x4, -x4plus
        rf"(?:(?<=[a-z])X|(?<=[A-Z])x|(?i:(?<![A-Za-z])(?:{words})x)){NUMBER}{END}"
        r"(?=[^A-Za-z]|$|plus|minus|[vV][0-9])",  # BSRGANx2, netX2, spanx4_ch48
        rf"(?<![0-9A-Za-z])(?<![0-9]\.){NUMBER}[xX](?![0-9xX]|large)",  # 4xNomos, _2x
        rf"(?i:(?<![A-Za-z])(?:up)?scale|(?<![A-Za-z])srf)[_\-=.]?{NUMBER}{END}",  # scale2, upscale_4, SRF_2
    )
    return tuple(map(re.compile, patterns))


def _is_hash(run: str) -> bool:
    changes = sum(one.isdigit() != other.isdigit() for one, other in pairwise(run))
    return len(run) >= HASH_LENGTH and 3 * changes > len(run)
