"""How much of an image is refined: K, a share of the cells, a threshold or a time."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from ..errors import InputError
from ..quantities import check_whole_number, real


@dataclass(frozen=True)
class Amount:
    """One of four ways to say which K cells are refined, or none, which means the K of the model's configuration.

    ``k``: that many. ``fraction``: that share of the image's cells. ``max_ms``: as many as take no longer than these
    milliseconds, which only ``choice.Choice`` can tell. ``threshold``: of the K cells that would be refined without it
    those whose mask value is larger; here alone ``k`` may be given too, and is their largest number.
    """

    k: int | None = None
    fraction: float | None = None
    threshold: float | None = None
    max_ms: float | None = None

    def __post_init__(self) -> None:
        k, fraction, threshold, max_ms = self.k, self.fraction, self.threshold, self.max_ms
        if k is not None and fraction is not None:
            raise InputError("K: give either k or fraction, not both")
        if max_ms is not None and not k is fraction is threshold is None:
            raise InputError("K: max_ms alone decides how much is refined; leave out k, fraction and threshold")
        if threshold is not None and fraction is not None:
            raise InputError("K: give either fraction or threshold, not both; k= limits what a threshold selects")
        if k is not None:
            k = check_whole_number("K: k is the number of patches to refine", k, 0)
        if fraction is not None:
            fraction = real(fraction)
            if fraction is None or not 0 <= fraction <= 1:
                raise InputError(f"K: fraction is the share of cells to refine, between 0 and 1; got {self.fraction!r}")
        if threshold is not None:
            threshold = real(threshold)
            if threshold is None:
                raise InputError(f"K: threshold is a mask value, a number around 0 to 1; got {self.threshold!r}")
        if max_ms is not None:
            max_ms = real(max_ms)
            if max_ms is None or max_ms <= 0:
                raise InputError(f"K: max_ms is the time of one image in milliseconds, above 0; got {self.max_ms!r}")
        for name, value in (("k", k), ("fraction", fraction), ("threshold", threshold), ("max_ms", max_ms)):
            object.__setattr__(self, name, value)

    def __bool__(self) -> bool:
        """Whether anything was given."""
        return self != Amount()

    def __str__(self) -> str:
        if self.threshold is not None:
            return f"the cells above {self.threshold:.4g}"
        return f"K = {self.k}" if self.fraction is None else f"{100 * self.fraction:g} % of the cells"

    def count(self, cells: int, default: int) -> int:
        """K of an image of so many cells, without a threshold or a time: ``default`` where neither k nor fraction."""
        if self.fraction is not None:
            return round(Fraction(str(self.fraction)) * cells)  # as it was written: 0.575 is a little less in binary
        return min(default if self.k is None else self.k, cells)


def above(mask: Tensor, indices: Tensor, threshold: float, static: bool | None = None) -> Tensor:
    """Of the cells at ``indices`` (1, K) those whose value in ``mask`` (1, Hp, Wp) is larger than ``threshold``.

    The others are left out, (1, n), n <= K; or, if ``static``, K stays and their index becomes -1. That is so on all
    devices but the CPU, where n would not be known without waiting, and where ``gather_patches`` and ``paste_patches_``
    take -1 for no cell.
    """
    chosen = mask.flatten(1).gather(1, indices.long()) > threshold
    static = mask.device.type != "cpu" if static is None else static
    return indices.masked_fill(~chosen, -1) if static else indices[chosen][None]
