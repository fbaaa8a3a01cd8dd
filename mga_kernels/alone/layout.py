"""Float maps: the layout in which the CPU convolves in float32, csrc/maps/layout.h in Python.

A map is float32 (H, groups, pitch, 8): channel 8 g + i of pixel (y, x) is ``map[y, g, 4 + x, i]``. Channels up to a
multiple of 8, and pixels before the first and behind the last, are zeros.
"""

from __future__ import annotations

GROUP = 8  # channels
BEFORE = 4  # pixels of zeros
COLUMNS = 12  # whole tiles of 4 and of 6
FEW_OUTPUTS = 4  # of which no panels are made

# The parts of a 9x9 kernel of at most 3 outputs: what its block (i, j), of rows from 3 i and columns from 3 j on, makes
# as a 3x3 kernel, stands in these channels of a map.
PART_CHANNELS = 32
PARTS = (
    ((0, 1, 2), (4, 5, 6), (24, 25, 26)),
    ((8, 9, 10), (12, 13, 14), (28, 29, 30)),
    ((16, 17, 18), (20, 21, 22), (19, 23, 27)),
)


def map_pitch(width: int) -> int:
    """Pixels from a group of a row to the next."""
    return -(-width // COLUMNS) * COLUMNS + 2 * BEFORE


def groups_of(channels: int) -> int:
    return -(-channels // GROUP)
