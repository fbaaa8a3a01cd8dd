"""Layers of ``convolve_pixels_`` by name, as small as they can be, for the definition and for the kernel."""

import torch

from mga_kernels.ops.convolve_pixels.layout import pack_pixel_weight, padded, tiles_of, whole

HEIGHT, WIDTH = 6, 19  # two tiles of 8 x 16, which go beyond the image
PLAIN = {"size": 3, "stride": 1, "shuffle": 1, "gate": 0, "activation": 0, "cells": [], "gain": 1.0, "cell": 0}
PATCHES = [5, 6, 1, 3, 4, 3]  # period of rows, of columns, first, end of rows, of columns, across

# Channels, outputs, and what else a layer has; ``bytes``: pictures of so many rows and columns.
LAYERS = {
    "3x3": (20, 24, {"activation": 1}),
    "3x3, sums of patches": (16, 16, {"cells": PATCHES, "sums": True}),
    "stride 2 into floats": (12, 3, {"stride": 2, "planes": True}),
    "a block of 128": (16, 256, {"size": 1, "activation": 2}),
    "SPAN's gate": (16, 48, {"size": 1, "gate": 2, "skip": True}),
    "gate and also, which it leaves": (16, 16, {"size": 1, "gate": 1, "skip": True, "also": True}),
    "two added": (16, 16, {"size": 1, "skip": True, "also": True, "activation": 1}),
    "tiles": (16, 16, {"size": 1, "tiles": [1, -1], "sums": True}),
    "a counted list with zeros": (16, 16, {"tiles": [-3, 0, 1], "count": 2, "skip": True, "sums": True}),
    "chosen cells of a list": (16, 16, {"size": 1, "tiles": [0, 1], "count": 1, "cell": 3, "sums": True}),
    "bytes x4 of chosen cells": (
        16,
        48,
        {"size": 1, "shuffle": 4, "bytes": (1, 4 * HEIGHT, 4 * WIDTH), "tiles": [1, 0, -1], "count": 1, "cell": 4},
    ),
    "shuffle": (16, 64, {"size": 1, "shuffle": 2}),
    "shuffle of patches": (16, 64, {"size": 1, "shuffle": 2, "cells": [10, 12, 2, 6, 8, 3]}),
    "factors": (20, 20, {"size": 0, "skip": True, "activation": 1}),
    "bytes x1": (16, 3, {"size": 1, "bytes": (1, HEIGHT, WIDTH)}),
    "bytes x2": (16, 12, {"size": 1, "shuffle": 2, "bytes": (1, 2 * HEIGHT, 2 * WIDTH)}),
    "bytes x3 with an image": (16, 27, {"size": 1, "shuffle": 3, "bytes": (1, 3 * HEIGHT, 3 * WIDTH), "added": True}),
    "bytes x4": (16, 48, {"size": 1, "shuffle": 4, "bytes": (1, 4 * HEIGHT, 4 * WIDTH)}),
    "bytes x4 of patches": (
        16,
        48,
        {"size": 1, "shuffle": 4, "bytes": (4, 4, 12), "cells": [12, 24, 4, 8, 16, 2]},
    ),
    "bytes x4 less one": (16, 48, {"size": 1, "shuffle": 4, "bytes": (4, 4, 11), "cells": [12, 24, 1, 8, 16, 2]}),
}


def arguments(name: str, dtype: torch.dtype, generator: torch.Generator) -> tuple:
    """As backends take them: out, which holds nines, x, weight, ..."""
    channels, outputs, has = LAYERS[name]
    numbers = {key: has.get(key, usual) for key, usual in PLAIN.items()}
    size, s, stride = numbers["size"], numbers["shuffle"], numbers["stride"]

    def random(*shape):
        return torch.randn(shape, generator=generator)

    x = random(HEIGHT, WIDTH, whole(channels)).to(dtype)
    weight, factors = torch.zeros(0, dtype=dtype), random(padded(outputs))
    if size:
        weight, factors = pack_pixel_weight(random(outputs, channels, size, size) / 10, dtype)
    epilogue = torch.cat([random(4, padded(outputs)), factors[None]])
    height, width = ((side - size) // stride + 1 if stride > 1 else side for side in (HEIGHT, WIDTH))
    out = torch.full((s * height, s * width, outputs // s**2), 9.0, dtype=dtype)
    if has.get("planes"):
        out = torch.full((outputs, height, width), 9.0).permute(1, 2, 0)
    if "bytes" in has:
        out = torch.full((*has["bytes"], 3), 9, dtype=torch.uint8)
    added = [random(*out.shape).to(dtype) if has.get(key) else None for key in ("skip", "also")]
    tiles = torch.tensor(has["tiles"], dtype=torch.int32) if "tiles" in has else None
    down, across = tiles_of(height, width)
    sums = torch.full((down * across, 2, outputs), 9.0) if has.get("sums") else None
    image = torch.randint(256, (HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8) if has.get("added") else None
    count = torch.tensor(has["count"], dtype=torch.int32) if "count" in has else None
    side = numbers["cell"]
    chosen = torch.rand(-(-height // side), -(-width // side), generator=generator) < 0.5 if side else None
    return (
        *(out, x, weight, epilogue, *added, tiles, sums, torch.tensor(True), image, count, chosen),
        *numbers.values(),
    )
