"""What the CPU convolutions are told in numbers: records of which the native library has the same fields by name.

csrc/convolution/records.h lists the fields once more, for C++. A library with other fields is not used: ``adopt``,
which is called when it is loaded, says why. The order of the numbers is the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from operator import attrgetter


@dataclass(frozen=True)
class SlotRecord:
    """What stages of a chain read and write: a tensor, or a ring of ``rows`` rows of ``pairs`` pairs of channels.

    ``scale``: its rows and columns are so many times those of the chain's image. ``mask``: the number of its mask, -1
    for none. ``pairs`` and ``rows`` say nothing for a slot with a tensor.
    """

    scale: int
    mask: int = -1
    pairs: int = 0
    rows: int = 1


@dataclass(frozen=True)
class StageRecord:
    """A layer of a chain.

    ``x``, ``out``, ``skip`` are numbers of slots, each with the first pair of it that is used; ``skip`` -1 for none.
    ``size`` of the kernel, 0 for factors and offsets; ``shuffle`` s of a pixel shuffle at the end; ``phased``: only the
    weights that ``pack_pair_weight`` keeps are there; ``gate``: the skip is multiplied by the sigmoid of the result.
    ``lead``: by how many rows of the chain the stage runs ahead of the last one. ``statistics``: the number of the
    tensor that takes its sums, -1 for none.
    """

    x: int
    x_pair: int
    out: int
    out_pair: int
    size: int
    skip: int = -1
    skip_pair: int = 0
    shuffle: int = 1
    phased: bool = False
    gate: bool = False
    lead: int = 0
    statistics: int = -1


@dataclass(frozen=True)
class FrameRecord:
    """The size of a chain's image, and where pictures of it lie in what the chain makes.

    Picture i begins at row i // across * step_y + inset and column i % across * step_x + inset. ``band``: rows of the
    image in which layers over float maps run together; 0 for one layer after the other.
    """

    height: int
    width: int
    across: int = 1
    step_y: int = 1
    step_x: int = 1
    inset: int = 0
    band: int = 0


@dataclass(frozen=True)
class MapRecord:
    """A tensor that layers over float maps read or write: its scale, and the number of its mask, -1 for none."""

    scale: int = 1
    mask: int = -1


@dataclass(frozen=True)
class LayerRecord:
    """A layer of ``convolve_maps_``.

    ``x``, ``out``, ``skip``, ``also`` are numbers of tensors, each with the first channel of it that is used, a
    multiple of 8; -1 for no ``skip`` and no ``also``. ``inputs`` and ``outputs``: channels of the weight. ``size`` of
    the kernel, 0 for factors; ``stride`` 1 or 2; ``tile`` 4 or 6 where it is computed in such tiles, or 0; ``shuffle``
    s of a pixel shuffle at the end. ``gate``: 0, 1 for a sigmoid, 2 for SPAN's; ``activation``: 0 for a slope, 1 for
    SiLU. ``tiles``: the number of the list of its tiles, -1 for all tiles; ``zeros``: of the list of those that it
    writes as zeros, -1 for none. ``statistics``: the number of the tensor that takes its sums, -1 for none. ``parts``:
    of a 9x9 kernel, the number of the tensor with the sums of its blocks, -1 for none. ``lead``: in bands, by how many
    rows of the image it runs ahead of the last layer. ``patch``: tiles fill patches of so many pixels a side, of which
    one begins every ``step`` pixels, the first ``inset`` pixels from the border, and there are no others; 0 for tiles
    side by side over everything.
    """

    x: int
    inputs: int
    out: int
    outputs: int
    size: int
    x_channel: int = 0
    out_channel: int = 0
    skip: int = -1
    skip_channel: int = 0
    also: int = -1
    also_channel: int = 0
    stride: int = 1
    tile: int = 0
    shuffle: int = 1
    gate: int = 0
    activation: int = 0
    tiles: int = -1
    zeros: int = -1
    statistics: int = -1
    parts: int = -1
    lead: int = 0
    patch: int = 0
    step: int = 0
    inset: int = 0


Record = SlotRecord | StageRecord | FrameRecord | MapRecord | LayerRecord
RECORDS: dict[str, type] = {
    "slot": SlotRecord,
    "stage": StageRecord,
    "frame": FrameRecord,
    "map": MapRecord,
    "layer": LayerRecord,
}
_numbers = {kind: attrgetter(*(field.name for field in fields(kind))) for kind in RECORDS.values()}  # of a record


def adopt(fields_of: Callable[[str], str]) -> str | None:
    """Take over the order of fields from a library, or say why its records are not these.

    ``fields_of``: the name of a record -> the names of its fields, with spaces between them.
    """
    orders = {name: fields_of(name).split() for name in RECORDS}
    for name, kind in RECORDS.items():
        ours, theirs = {field.name for field in fields(kind)}, orders[name]
        if ours != set(theirs) or len(ours) != len(theirs):
            apart = ", ".join(sorted(ours ^ set(theirs))) or "one twice"
            return f"the fields of its record {name!r} are not those of this Python ({apart})"
    _numbers.update((kind, attrgetter(*orders[name])) for name, kind in RECORDS.items())
    return None


def encode(records: Iterable[Record]) -> list[int]:
    """The numbers of all records one after the other, as the library reads them."""
    return [int(number) for record in records for number in _numbers[type(record)](record)]
