"""Files of several frames (GIF, APNG, WebP, AVIF) or pages (TIFF): frame by frame in, with times, and out again."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageSequence

from ..errors import ImageError
from .deep import bits_of
from .exif import STRUCTURAL
from .formats import REFUSALS, metadata_options
from .info import Options
from .metadata import known, stated_in_file
from .opening import open_image, opened
from .photo import Photo, to_image
from .reading import from_pillow, read_stream
from .tiff import RESOLUTION_UNIT, X_RESOLUTION, Y_RESOLUTION

MOVING = frozenset({"GIF", "PNG", "WEBP", "AVIF"})  # formats that hold a time for every frame
FILMS = MOVING | {"TIFF"}
_SUBFILE, _PREVIEW = 254, 1  # the tag that says what a page of a TIFF file is, and its bit of a smaller version
_OPAQUE_FROM = 128  # alpha at which a pixel of a GIF, which has no other alpha, is seen
_COLOURS = 256


@dataclass
class Film:
    """A file of ``count`` frames of ``size`` (width, height), of one size as far as they have times.

    ``format``: Pillow's name of it. ``pages``: frames without times. ``loop``: how often it plays, 0 for ever, None
    where nothing is said. ``hidden``: the first frame is shown only where a PNG is not played (its default image).
    ``tags``: some page has tags that a page made of it does not get.
    """

    stream: BinaryIO
    name: str
    format: str
    count: int
    size: tuple[int, int]
    pages: bool
    loop: int | None = None
    hidden: bool = False
    tags: bool = False
    notes: list[str] = field(default_factory=list)

    def frames(self) -> Iterator[tuple[Photo, float]]:
        """Each frame as it is seen, and its milliseconds. ImageError for one that is damaged."""
        image = open_image(self.stream, self.name)
        stated = stated_in_file(image, self.stream, self.notes)
        for number in range(image.n_frames):  # type: ignore[attr-defined]
            one = _decoded(image, number, f"frame {number + 1} of {self.name}")
            if self.pages and _is_preview(one):
                continue
            self.tags = self.tags or (self.pages and number > 0 and _has_tags(one))
            photo = from_pillow(one, f"frame {number + 1} of {self.name}", rescued=stated if number == 0 else {})
            self.notes += [note for note in photo.notes if note not in self.notes]
            yield replace(photo, notes=[]), float(one.info.get("duration") or 0)


def read_film(stream: BinaryIO, name: str) -> Film | None:
    """The film that a stream holds; None where it is one picture, and what ``read_stream`` refuses for another reason.

    The stream must stay open while its frames are read. MPO, of which the main picture counts, is none.
    """
    try:
        image = open_image(stream, name)
        count = getattr(image, "n_frames", 1)
    except Exception:  # whatever is wrong with the file, reading its picture says it
        return None
    if image.format not in FILMS or count < 2:
        return None
    if image.format != "TIFF":
        loop, hidden = image.info.get("loop"), bool(image.info.get("default_image"))
        if bits_of(image, name, stream) > 8:
            return None
        return Film(stream, name, image.format, count, image.size, False, loop, hidden)
    kept = []
    try:
        for page in ImageSequence.Iterator(image):
            if not _is_preview(page):
                kept.append(page.size)
                if bits_of(page, name, stream) > 8:
                    return None
    except Exception as problem:
        raise ImageError(f"{name} is damaged: page {len(kept) + 1} cannot be read ({problem})") from problem
    film = Film(stream, name, "TIFF", len(kept), kept[0] if kept else image.size, True)
    if len(kept) < count:
        film.notes.append(f"{count - len(kept)} smaller versions of its pages were left out")
    if not kept:
        return None
    return film


def read_picture(path: Path | None, data: bytes, name: str) -> Photo | Film:
    """The film or the photograph, of all its bits, of a file, or of ``data`` where there is none."""
    with opened(path) if path is not None else io.BytesIO(data) as stream:
        film = read_film(stream, name)
        if film is None:
            return read_stream(stream, name, deep=True)
        if path is not None:
            stream.seek(0)
            data = stream.read()
        return replace(film, stream=io.BytesIO(data))


def _decoded(image: Image.Image, number: int, name: str) -> Image.Image:
    """The frame as a picture of its own, with what Pillow says of it."""
    try:
        image.seek(number)
        image.load()
        one = image.copy()
    except Exception as problem:
        raise ImageError(f"{name} is damaged and cannot be read ({problem})") from problem
    if hasattr(image, "tag_v2"):
        one.info["tags"] = dict(image.tag_v2)
    return one


def _is_preview(page: Image.Image) -> bool:
    tags = page.info.get("tags", getattr(page, "tag_v2", {}))
    return bool(int(tags.get(_SUBFILE, 0) or 0) & _PREVIEW)


def _has_tags(page: Image.Image) -> bool:
    """Whether a page of a TIFF file has tags beside those about its pixels."""
    resolution = {X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT}
    return bool(set(page.info.get("tags", {})) - STRUCTURAL - resolution)


def check_holds(film: Film, kind: str, name: str) -> None:
    """ImageError where a file of ``kind``, called ``name``, cannot hold the frames or pages of ``film``."""
    what = f"{film.name} holds {film.count} {'pages' if film.pages else 'frames'}"
    if film.pages and kind != "TIFF":
        raise ImageError(f"cannot write {name}: {what}, which only TIFF can hold; write .tiff")
    if kind not in FILMS:
        raise ImageError(f"cannot write {name}: {what} and {kind} holds one; write .gif, .png, .webp, .avif or .tiff")


def write_film(
    film: Film, frames: Sequence[tuple[Photo, float]], kind: str, stream: BinaryIO, name: str, options: Options
) -> list[str]:
    """Write ``frames``, those of ``film`` made larger, with their milliseconds; returns what was not kept.

    ``options``: of Pillow's encoder of ``kind``. What is seen at each time stays; how a frame replaces the one before
    is chosen anew, since every frame that was read is whole.
    """
    notes: list[str] = []
    pictures = [_picture(photo, kind) for photo, _ in frames]
    pictures = _of_one_mode(pictures) if kind != "GIF" and not film.pages else pictures
    info = known(frames[0][0].info)
    comment = info.pop("comment", None) if kind == "GIF" else None
    options = options | metadata_options(kind, pictures[0], info, notes) | ({"comment": comment} if comment else {})
    if kind in MOVING:
        options |= _playing(film, [time for _, time in frames], kind, pictures, notes)
    else:
        if not film.pages:
            notes.append("TIFF has no times, so it holds the frames as pages")
        if film.tags or {"exif", "xmp", "iptc"} & set(info):
            notes.append("of the tags of its pages only profile and resolution were kept")
    first, *others = pictures
    try:
        Image.Image.save(first, stream, kind, save_all=True, append_images=others, **options)
    except (*REFUSALS, OSError) as problem:
        raise ImageError(f"cannot write {name}: {kind} refused the frames ({problem})") from problem
    return notes


def _picture(photo: Photo, kind: str) -> Image.Image:
    """As it is written; a page of a TIFF keeps its own profile and resolution."""
    image = to_image(photo)
    plain = image.copy()
    plain.info = {}
    if kind == "GIF":
        return in_palette(plain)
    if kind == "TIFF":
        plain.encoderinfo = {key: image.info[key] for key in ("icc_profile", "dpi") if key in image.info}
    return plain


def in_palette(image: Image.Image) -> Image.Image:
    """An L, LA, RGB or RGBA image in 256 colours of its own, one of which is none where it is see-through."""
    if image.mode == "L":
        return image
    alpha = np.asarray(image.getchannel("A")) if image.mode in ("LA", "RGBA") else None
    clear = None if alpha is None else alpha < _OPAQUE_FROM
    holes = clear is not None and bool(clear.any())
    colours = image.convert("RGB")
    palette = colours.quantize(_COLOURS - holes, Image.Quantize.MEDIANCUT)
    made = colours.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    if clear is None or not holes:
        return made
    values = np.array(made)
    values[clear] = _COLOURS - 1
    painted = Image.fromarray(values, "P")
    painted.putpalette([*(made.getpalette() or [])[: 3 * (_COLOURS - 1)], 0, 0, 0])
    painted.info["transparency"] = _COLOURS - 1
    return painted


def _of_one_mode(pictures: list[Image.Image]) -> list[Image.Image]:
    """Frames that are grey or without alpha beside others become what those are."""
    modes = {picture.mode for picture in pictures}
    if len(modes) == 1:
        return pictures
    grey, alpha = modes <= {"L", "LA"}, any(mode.endswith("A") for mode in modes)
    mode = ("LA" if alpha else "L") if grey else ("RGBA" if alpha else "RGB")
    return [picture.convert(mode) for picture in pictures]


def _playing(film: Film, times: list[float], kind: str, pictures: list[Image.Image], notes: list[str]) -> Options:
    """Times, and how often it plays, as options of Pillow's writer."""
    unit = {"GIF": 10, "PNG": 0}.get(kind, 1)  # milliseconds; a PNG has fractions
    kept = [max(0, round(time / unit) * unit) if unit else time for time in times]
    if max(abs(one - other) for one, other in zip(kept, times, strict=True)) > 0.5:
        notes.append(f"{kind} counts time in {unit} ms, to which that of its frames was rounded")
    options: Options = {"duration": kept}
    if film.hidden and kind == "PNG":
        options |= {"default_image": True, "duration": kept[1:]}
    if kind == "AVIF":
        if film.loop:
            notes.append(f"AVIF cannot say that it plays {film.loop} times")
        return options
    if kind == "GIF":
        if film.loop is not None:
            options["loop"] = film.loop
        if any("transparency" in picture.info for picture in pictures):
            options["disposal"] = 2  # or what was there before would be seen through the next one
        return options
    # A GIF that does not say is shown once, a PNG or WebP for ever.
    options["loop"] = 1 if film.loop is None and film.format == "GIF" else film.loop or 0
    return options | ({"blend": 0, "disposal": 0} if kind == "PNG" else {})
