"""Numbers as callers have them: Python's, those of numpy, and tensors of no dimension. A bool is none."""

from __future__ import annotations

import math
import operator
import sys
from numbers import Real

import numpy as np

from .errors import InputError


def integer(value: object) -> int | None:
    """``value`` as an int where it is a whole number by its type, which 4.0 is not; None for everything else."""
    value = _plain(value)
    try:
        return None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def real(value: object) -> int | float | None:
    """``value`` as a finite int or float; None for everything else, NaN and infinity included."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = value if isinstance(value, int) else float(value)
        return number if math.isfinite(number) else None
    except OverflowError:  # a number that no float can hold
        return None


def plain_fields(record: object, *names: str) -> None:
    """Let a frozen dataclass hold as int what it was given as a whole number of another library, as JSON needs it."""
    for name in names:
        number = integer(getattr(record, name))
        if number is not None:
            object.__setattr__(record, name, number)


def check_whole_number(what: str, value: object, minimum: int) -> int:
    """``value`` as an int; InputError, saying ``what`` it is, for what is no whole number of ``minimum`` or more."""
    number = integer(value)
    if number is None or number < minimum:
        raise InputError(f"{what}, a whole number of {minimum} or more, got {value!r}")
    return number


def _plain(value: object) -> object:
    """What numpy and torch hold as Python holds it; a float32 as it is written: 0.575 is another number in binary."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    torch = sys.modules.get("torch")  # not imported for this: where it has not been, no value is a tensor
    if torch is not None and isinstance(value, torch.Tensor) and value.ndim == 0:
        value = value.item()
    if isinstance(value, np.floating):
        return float(str(value))
    return value.item() if isinstance(value, np.generic) else value
