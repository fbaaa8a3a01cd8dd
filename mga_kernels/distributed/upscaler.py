"""What one worker does: images in, results into a storage, one row about each."""

from __future__ import annotations

import io
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ..errors import ImageError, InputError, MGAError
from ..images import FORMATS, LOSSY, Film, Quality, encode_film, encode_image, read_picture, result_suffix
from ..images.size import Size
from .storages import Source, storage, table

if TYPE_CHECKING:
    from ..engine.model import MaskGuidedSR
    from ..engine.settings import Setting

Row = dict[str, str | int]  # what is told of an image


class Upscaler:
    """An actor of Ray or Ray Data: upscales photographs as ``mga upscale`` does and writes them below ``output``.

    ``model`` and ``settings`` are those of ``MaskGuidedSR.from_checkpoint``; the model is loaded with the first image,
    so each machine needs its file. ``size``: of results. ``suffix``, such as ".webp": their format, by default that of
    the image where it is PNG, JPEG, WebP or TIFF, otherwise PNG. ``file_quality``: that of ``save_image``, for those
    results that have one. ``wrap``: left and right edges meet, None where metadata say so.

    Called with a row, it returns one: {"name", "result", "width", "height", "how", "notes", "error"}. A row that comes
    in has "bytes", those of a file, and "path" or "name", what it is called; of a path the last part. A result that is
    there already is left, with "how" so. What goes wrong with an image is a sentence in "error", empty otherwise.
    """

    def __init__(
        self,
        output: str,
        model: str = "span-x4",
        size: Size | None = None,
        suffix: str | None = None,
        file_quality: Quality = None,
        wrap: bool | None = None,
        **settings: Setting,
    ) -> None:
        if suffix is not None and suffix not in FORMATS:
            raise InputError(f"Upscaler: the format {suffix!r} is none of {', '.join(FORMATS)}")
        self._output, self._suffix, self._size = storage(output), suffix, size or Size()
        self._asked, self._quality, self._wrap = model, file_quality, wrap
        self._settings: dict[str, Any] = settings
        self._model: MaskGuidedSR | None = None
        self._group: tuple[tuple[str, str, int, str], Any] | None = None

    def __call__(self, row: Mapping[str, object]) -> Row:
        name = str(row.get("name") or posixpath.basename(str(row.get("path") or "")))
        return self._reported(name, lambda: row["bytes"])

    def upscale(self, sources: Sequence[Source]) -> list[Row]:
        """The rows of images that are still to be read."""
        return [self._reported(source.title, partial(self._read, source)) for source in sources]

    def _reported(self, name: str, read: Callable[[], object]) -> Row:
        row: Row = {"name": name, "result": "", "width": 0, "height": 0, "how": "", "notes": "", "error": ""}
        try:
            return row | self._made(name, read)
        except (MGAError, MemoryError, OSError) as error:
            text = str(error) or type(error).__name__
        except Exception as error:  # of one image; the others go on
            text = f"failed unexpectedly ({type(error).__name__}: {error})"
        return row | {"error": " ".join((text if name in text else f"{name}: {text}").split())}

    def _made(self, name: str, read: Callable[[], object]) -> Row:
        from ..engine.enlarging import larger, larger_frames

        result = result_name(name, self._suffix)
        if self._output.has(result):
            return {"result": result, "how": "it was there"}
        picture = read_picture(None, bytes(cast(bytes, read())), name)
        model = self._loaded()
        kind, size = FORMATS[posixpath.splitext(result)[1].lower()], self._size.of(*picture.size, model.scale)
        encoded, quality = io.BytesIO(), self._quality if kind in LOSSY else None
        if isinstance(picture, Film):
            frames, how = larger_frames(model, picture, self._size)
            notes = picture.notes + encode_film(picture, frames, kind, encoded, result, quality)
        else:
            photo, how = larger(model, picture, size, self._wrap)
            notes = photo.notes + encode_image(photo, kind, encoded, result, quality)
        self._output.write(result, encoded.getvalue())
        return {"result": result, "width": size[0], "height": size[1], "how": how, "notes": "; ".join(notes)}

    def _loaded(self) -> MaskGuidedSR:
        if self._model is None:
            from ..engine.model import MaskGuidedSR

            self._model = MaskGuidedSR.from_checkpoint(self._asked, **self._settings)
        return self._model

    def _read(self, source: Source) -> bytes:
        if source.row is None:
            return storage(source.place).read(source.name)
        group, number, column = source.row
        key = source.place, source.name, group, column
        if self._group is None or self._group[0] != key:  # rows of a group come one after the other
            self._group = key, table(source.place, source.name).read_row_group(group, [column]).column(0)
        found = self._group[1][number].as_py()
        if not isinstance(found, bytes):
            raise ImageError(f"{source.title}: the column {column} of {source.name} holds no bytes there")
        return found


def result_name(name: str, suffix: str | None) -> str:
    """What the result of an image of that name is called, below the output; InputError where it would not be below."""
    clean = posixpath.normpath(name.replace(os.sep, "/")) if name else ""
    if clean in ("", ".") or clean.startswith(("/", "../")) or clean == ".." or "\0" in clean:
        raise InputError(f"an image called {name!r} has no place below the output")
    stem, own = posixpath.splitext(clean)
    return stem + (suffix or result_suffix(own))
