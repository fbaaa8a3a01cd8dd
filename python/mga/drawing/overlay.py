"""Pictures that explain a result: where the mask was strong and what was refined, and before beside after."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mga_kernels.errors import InputError

from ..evaluation.metrics import GREY

# Mask strength from weak to strong; each step is also lighter, so that it reads without colour vision.
_RAMP = np.array([(70, 110, 255), (235, 70, 170), (255, 150, 40), (255, 240, 90)], np.float32)
_TINT = 0.45
_DIM = 0.6
_PAPER, _INK = (24, 24, 27), (240, 240, 240)


def ramp(strength: np.ndarray) -> np.ndarray:
    """Colours, float32 (..., 3) in 0..255, of mask strengths in 0..1."""
    position = np.clip(strength, 0, 1) * (len(_RAMP) - 1)
    return np.stack([np.interp(position, range(len(_RAMP)), _RAMP[:, i]) for i in range(3)], -1).astype(np.float32)


def draw_overlay(image: np.ndarray, mask: np.ndarray, indices: np.ndarray, cell: int) -> Image.Image:
    """The image in dimmed grey with the refined cells in colour, tinted by their mask value, and a legend.

    ``image`` uint8 (H, W, 3); ``mask`` (Hp, Wp); ``indices`` of the refined cells in raster order; ``cell`` is the side
    of a cell in pixels of ``image``. The grid may reach over the right and lower edge, as a padded image's does.
    """
    pixels, low, high = _tint(image, mask, indices, cell)
    return _add_legend(Image.fromarray(pixels), len(indices), mask.size, low, high)


def _tint(image: np.ndarray, mask: np.ndarray, indices: np.ndarray, cell: int) -> tuple[np.ndarray, float, float]:
    """The pixels of ``draw_overlay`` and the mask values at the two ends of its colours."""
    height, width = image.shape[:2]
    if image.ndim != 3 or height > mask.shape[0] * cell or width > mask.shape[1] * cell:
        raise InputError(f"draw_overlay: {mask.shape} cells of {cell} pixels do not cover an image {image.shape}")
    refined = np.zeros(mask.shape, bool)
    refined.reshape(-1)[indices] = True
    values = mask[refined]
    # A few cells are far above the rest, which would all get the first colour if the scale reached up to them.
    low, high = (float(values.min()), float(np.quantile(values, 0.95))) if values.size else (0.0, 1.0)
    colour = ramp((mask - low) / max(high - low, 1e-12))
    line = max(1, cell // 16)
    edge = np.zeros((cell, cell, 1), bool)
    edge[:line] = edge[:, :line] = True
    result = np.empty(image.shape, np.uint8)
    for row in range(-(-height // cell)):  # row by row, to need no second image of floats
        top, bottom = row * cell, min((row + 1) * cell, height)
        band = image[top:bottom].astype(np.float32)
        grey = (band @ np.array(GREY, np.float32) * _DIM)[..., None]
        hue = colour[row].repeat(cell, 0)[None, :width]
        border = np.tile(edge[: bottom - top], (1, mask.shape[1], 1))[:, :width]
        tinted = np.where(border, hue, band + (hue - band) * _TINT)
        result[top:bottom] = np.where(refined[row].repeat(cell)[None, :width, None], tinted, grey)
    return result, low, high


def _add_legend(picture: Image.Image, refined: int, cells: int, low: float, high: float) -> Image.Image:
    """A strip below the picture: how many cells were refined, and the scale of the colours if there is room."""
    size = max(10, picture.width // 90)
    strip = Image.new("RGB", (picture.width, size * 2), _PAPER)
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size)
    share = f"{refined:,} of {cells:,} cells refined ({100 * refined / cells:.1f} %)"
    first, last = f"{share}, in colour by mask value    {low:.3g}", f"{high:.3g} and more"
    bar = round(size + draw.textlength(first, font) + size / 2)
    if refined and bar + 10.5 * size + draw.textlength(last, font) < picture.width:
        colours = ramp(np.linspace(0, 1, size * 10))[None].repeat(size, 0)
        strip.paste(Image.fromarray(np.rint(colours).astype(np.uint8)), (bar, size // 2))
        draw.text((bar + round(10.5 * size), size), last, _INK, font, anchor="lm")
    else:
        short = f"{refined:,}/{cells:,}"
        first = share if size + draw.textlength(share, font) < picture.width else short
    draw.text((size, size), first, _INK, font, anchor="lm")
    result = Image.new("RGB", (picture.width, picture.height + strip.height))
    result.paste(picture, (0, 0))
    result.paste(strip, (0, picture.height))
    return result


def most_refined(mask: np.ndarray, indices: np.ndarray, window: int, count: int) -> list[tuple[int, int]]:
    """(row, column) of up to ``count`` windows of ``window`` cells with most refined mask value, none overlapping."""
    values = np.maximum(mask.reshape(-1)[indices], 0).astype(np.float64)
    floor = (float(values.max(initial=0)) or 1.0) * 1e-3  # a refined cell counts even where the mask is 0
    weight = np.zeros(mask.size)
    weight[indices] = values + floor
    table = np.pad(weight.reshape(mask.shape).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    if window > min(mask.shape):
        return []
    total = table[window:, window:] - table[:-window, window:] - table[window:, :-window] + table[:-window, :-window]
    found: list[tuple[int, int]] = []
    while len(found) < count and total.max() > floor / 2:  # not 0: differences of sums leave rounding errors
        row, column = (int(i) for i in np.unravel_index(total.argmax(), total.shape))
        found.append((row, column))
        total[max(0, row - window + 1) : row + window, max(0, column - window + 1) : column + window] = 0
    return found


def draw_strip(
    lr: np.ndarray,
    coarse: np.ndarray,
    final: np.ndarray,
    mask: np.ndarray,
    indices: np.ndarray,
    cell: int,
    count: int = 4,
    side: int = 400,
) -> Image.Image:
    """Bicubic, coarse, final and the refined cells beside each other on the most refined places, below a map of them.

    ``lr`` uint8 (h, w, 3), ``coarse`` and ``final`` uint8 (s h, s w, 3), the rest as for ``draw_overlay``. Each crop is
    about a twelfth of the image's shorter side and is enlarged without smoothing to about ``side`` pixels.
    """
    height, width = final.shape[:2]
    window = max(1, round(min(height, width) / 12 / cell))
    places = [
        (min(row * cell, height - window * cell), min(column * cell, width - window * cell))
        for row, column in most_refined(
            mask[: height // cell, : width // cell], _inside(indices, mask, final, cell), window, count
        )
    ]
    crop = window * cell
    zoom = max(1, round(side / crop))
    bicubic = np.asarray(Image.fromarray(lr).resize((width, height), Image.Resampling.BICUBIC))
    columns = [("bicubic", bicubic), ("base", coarse), ("mask-guided", final)]
    columns.append(("refined cells", _tint(final, mask, indices, cell)[0]))
    gap, size = 12, 26
    tile, header = crop * zoom, round(size * 1.5)
    picture = _map(final, places, crop, len(columns) * (tile + gap) - gap)
    sheet = Image.new(
        "RGB", (picture.width + 2 * gap, picture.height + 2 * gap + header + len(places) * (tile + gap)), _PAPER
    )
    sheet.paste(picture, (gap, gap))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    for i, (name, pixels) in enumerate(columns):
        left = gap + i * (tile + gap)
        if places:
            draw.text((left + tile // 2, picture.height + 2 * gap + header // 2), name, _INK, font, anchor="mm")
        for j, (y, x) in enumerate(places):
            top = picture.height + 2 * gap + header + j * (tile + gap)
            piece = Image.fromarray(np.ascontiguousarray(pixels[y : y + crop, x : x + crop]))
            sheet.paste(piece.resize((tile, tile), Image.Resampling.NEAREST), (left, top))
            if i == 0:
                _number(draw, (left, top), j + 1, font, size)
    return sheet


def _inside(indices: np.ndarray, mask: np.ndarray, image: np.ndarray, cell: int) -> np.ndarray:
    """The indices of the cells wholly inside the image, in the grid of those cells."""
    rows, columns = image.shape[0] // cell, image.shape[1] // cell
    row, column = np.divmod(indices, mask.shape[1])
    keep = (row < rows) & (column < columns)
    return row[keep] * columns + column[keep]


def _map(final: np.ndarray, places: list[tuple[int, int]], crop: int, width: int) -> Image.Image:
    """The whole picture at ``width`` pixels, with a numbered box around every place."""
    factor = width / final.shape[1]
    picture = Image.fromarray(final).resize((width, max(1, round(final.shape[0] * factor))), Image.Resampling.LANCZOS)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(26)
    for number, (y, x) in enumerate(places, 1):
        box = [round(v * factor) for v in (x, y, x + crop, y + crop)]
        draw.rectangle(box, outline=tuple(int(v) for v in _RAMP[-1]), width=3)
        _number(draw, (box[0], box[1]), number, font, 26)
    return picture


def _number(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    number: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: int,
) -> None:
    x, y = corner
    draw.rectangle((x, y, x + round(size * 1.2), y + round(size * 1.2)), fill=tuple(int(v) for v in _RAMP[-1]))
    draw.text((x + size * 0.6, y + size * 0.6), str(number), _PAPER, font, anchor="mm")
