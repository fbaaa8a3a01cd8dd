"""Sheets of the paper's Figures 2, 5 and 6: error map with histogram, crops side by side, true and predicted mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mga_kernels.errors import InputError

from ..evaluation.metrics import luma
from .overlay import ramp

_PAPER, _INK, _MARK = (24, 24, 27), (240, 240, 240), (255, 240, 90)
GAP, TEXT = 12, 20
BINS = 40  # of the histogram

Box = tuple[int, int, int]  # left, top, side, in HR pixels


def luma_error(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Absolute luma difference (H, W) of two uint8 images (H, W, 3), 1 being white, as in Figure 2."""
    return np.abs(luma(image) - luma(other)) / 255


def error_sheet(lr: np.ndarray, coarse: np.ndarray, final: np.ndarray, side: int = 480) -> Image.Image:
    """Figure 2: LR image, coarse and final SR image, the error map between them, and its histogram."""
    error = luma_error(coarse, final)
    top = max(float(np.quantile(error, 0.999)), 1 / 255)
    strength = np.minimum(error / top, 1)
    colours = np.rint(ramp(strength) * np.sqrt(strength)[..., None]).astype(np.uint8)  # no error is black
    small = float((error < 0.1).mean())
    tiles = [
        ("LR", Image.fromarray(lr)),
        ("coarse (-B)", Image.fromarray(coarse)),
        ("final (-A)", Image.fromarray(final)),
        (f"error, 0 to {top:.3f}", Image.fromarray(colours)),
    ]
    scaled = [(name, fit(tile, side)) for name, tile in tiles]
    height = scaled[0][1].height
    scaled.append((f"histogram, {100 * small:.2f} % below 0.1", histogram(error, top, max(side, 2 * TEXT * 8), height)))
    return row_of(scaled)


def histogram(error: np.ndarray, top: float, width: int, height: int) -> Image.Image:
    """Share of the pixels in BINS steps of error from 0 to ``top`` and above, on a logarithmic axis."""
    shares = np.histogram(np.minimum(error, top), BINS, (0, top))[0] / error.size
    picture = Image.new("RGB", (width, height), _PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(TEXT * 3 // 4)
    left, bottom = 4 * TEXT, height - 2 * TEXT
    lowest = -max(2, math.ceil(-math.log10(1 / error.size)))
    for power in range(lowest, 1):
        y = round(bottom * power / lowest)
        draw.line((left, y, width, y), fill=(60, 60, 64))
        draw.text((left - 6, min(y + TEXT // 2, bottom)), f"{100 * 10.0**power:g} %", _INK, font, anchor="rm")
    for number, share in enumerate(shares):
        if share:
            edges = (left + round((width - left) * i / BINS) for i in (number, number + 1))
            start, end = edges
            colour = tuple(int(v) for v in ramp(np.array((number + 0.5) / BINS)))
            draw.rectangle(
                (start, round(bottom * math.log10(share) / lowest), max(start, end - 2), bottom), fill=colour
            )
    for position, anchor in ((0.0, "la"), (0.5, "ma"), (1.0, "ra")):
        place = (left + (width - left) * position, bottom + 6)
        draw.text(place, f"{top * position:.3f}{' and more' if position == 1 else ''}", _INK, font, anchor=anchor)
    return picture


def crops_sheet(hr: np.ndarray, images: Mapping[str, np.ndarray], box: Box, side: int = 320) -> Image.Image:
    """Figure 5: the HR image with a box, and beside it that box of it and of ``images``, uint8 of the same size."""
    left, top, size = box
    if min(left, top) < 0 or size < 1 or left + size > hr.shape[1] or top + size > hr.shape[0]:
        raise InputError(f"figures: the box {left},{top},{size} is not inside the image {hr.shape[1]}x{hr.shape[0]}")
    crops = [(name, enlarged(image, box, side)) for name, image in ({"HR": hr} | dict(images)).items()]
    columns = max(2, math.ceil(len(crops) / 2))
    rows = [row_of(crops[i : i + columns]) for i in range(0, len(crops), columns)]
    height = sum(row.height for row in rows)
    scene = Image.fromarray(hr).convert("RGB")
    factor = height / scene.height
    scene = scene.resize((max(1, round(scene.width * factor)), height), Image.Resampling.LANCZOS)
    edges = [round(v * factor) for v in (left, top, left + size, top + size)]
    ImageDraw.Draw(scene).rectangle(edges, outline=_MARK, width=3)
    sheet = Image.new("RGB", (scene.width + max(row.width for row in rows), height), _PAPER)
    sheet.paste(scene, (0, 0))
    y = 0
    for row in rows:
        sheet.paste(row, (scene.width, y))
        y += row.height
    return sheet


def mask_sheet(
    lr: np.ndarray, hr: np.ndarray, target: np.ndarray, mask: np.ndarray, cell: int, side: int = 480
) -> Image.Image:
    """Figure 6: LR and HR image, the true mask and the predicted one, float (Hp, Wp) in 0..1, with its l1 error.

    ``cell`` is the side of a cell in LR pixels; the cells may reach over the right and lower edge.
    """
    l1 = float(np.abs(mask - target).mean())
    tiles = [("LR", Image.fromarray(lr)), ("HR", Image.fromarray(hr))]
    for name, values in (("true mask", target), (f"predicted mask, l1 error {l1:.4f}", mask)):
        grey = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8).repeat(cell, 0).repeat(cell, 1)
        tiles.append((name, Image.fromarray(grey[: lr.shape[0], : lr.shape[1]])))
    return row_of([(name, fit(tile, side)) for name, tile in tiles])


def enlarged(image: np.ndarray, box: Box, side: int) -> Image.Image:
    """The box at ``side`` pixels, without smoothing."""
    left, top, size = box
    crop = np.ascontiguousarray(image[top : top + size, left : left + size])
    return Image.fromarray(crop).resize((side, side), Image.Resampling.NEAREST)


def fit(image: Image.Image, side: int) -> Image.Image:
    """The image with its longer side at ``side`` pixels."""
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST)


def row_of(tiles: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures beside each other, each with its name, lines of it parted by newlines, below."""
    font = ImageFont.load_default(TEXT)
    lines = max(name.count("\n") + 1 for name, _ in tiles)
    height = max(tile.height for _, tile in tiles)
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    widths = [max(tile.width, math.ceil(ruler.textbbox((0, 0), name, font)[2])) for name, tile in tiles]
    sheet = Image.new("RGB", (sum(widths) + GAP * (len(tiles) + 1), height + 2 * GAP + lines * TEXT * 3 // 2), _PAPER)
    draw, x = ImageDraw.Draw(sheet), GAP
    for (name, tile), width in zip(tiles, widths, strict=True):
        sheet.paste(tile, (x + (width - tile.width) // 2, GAP))
        draw.text((x + width // 2, GAP + height + TEXT // 4), name, _INK, font, anchor="ma", align="center")
        x += width + GAP
    return sheet
