"""The result as a Pillow image whose own ``save`` keeps the metadata."""

from __future__ import annotations

import io
import os
import warnings
from typing import IO, BinaryIO

from PIL import Image

from . import plugins
from .formats import metadata_options, tiff_tags
from .info import Info, Options
from .metadata import known
from .tiff import add_tags

Target = str | bytes | os.PathLike[str] | os.PathLike[bytes] | IO[bytes]


class PhotoImage(Image.Image):
    """A Pillow image with the metadata of a photograph in ``info``; images made from it are plain Pillow images.

    ``save`` is Pillow's, with EXIF, XMP, ICC profile and so on of ``info`` as its options where the caller gives none
    of that name (``exif=b""`` leaves EXIF out). What the format cannot hold is said in a warning.
    """

    @classmethod
    def of(cls, image: Image.Image, info: Info) -> PhotoImage:
        """``image`` itself, with the metadata ``info``."""
        image.__class__ = cls
        image.info.update(info)
        assert isinstance(image, cls)
        return image

    def save(self, fp: Target, format: str | None = None, **params: object) -> None:
        """Save as ``PIL.Image.Image.save`` does, with the metadata."""
        notes: list[str] = []
        kind = format.upper() if format else _kind(fp)
        if kind in plugins.PLUGINS:
            plugins.require(kind, "the result cannot be saved")
        if kind not in Image.SAVE:
            Image.init()
        info = {key: value for key, value in known(self.info).items() if key not in params}
        if kind == "TIFF" and not {"tiffinfo", "save_all", "append_images", "append"} & set(params):
            self._save_tiff(fp, info, notes, params)
        else:
            options = metadata_options(kind, self, info, notes) if kind in Image.SAVE else {}
            super().save(fp, format, **options | params)
        for note in notes:
            warnings.warn(note, stacklevel=2)

    def _save_tiff(self, fp: Target, info: Info, notes: list[str], params: Options) -> None:
        options = metadata_options("TIFF", self, info, notes) | params
        if not isinstance(fp, (str, bytes, os.PathLike)):
            buffer = io.BytesIO()  # the caller's stream need not be one that can be read
            save_tiff(self, buffer, info, notes, **options)
            fp.write(buffer.getbuffer())
            return
        existed = os.path.exists(fp)
        try:
            with open(fp, "w+b") as stream:
                save_tiff(self, stream, info, notes, **options)
        except BaseException:
            if not existed and os.path.exists(fp):
                os.unlink(fp)
            raise


def save_tiff(image: Image.Image, stream: BinaryIO, info: Info, notes: list[str], **options: object) -> None:
    """Write ``image`` by Pillow with ``options`` to ``stream``, which can be read too, and add the tags of ``info``."""
    large = image.width * image.height * len(image.getbands()) > 3 << 30  # offsets of plain TIFF end at 4 GiB
    Image.Image.save(image, stream, "TIFF", **{"big_tiff": large} | options)
    order, tags = tiff_tags(info, notes)
    if tags:
        add_tags(stream, tags, order)


def _kind(fp: Target) -> str:
    """Pillow's name of the format that a path, or the name of a stream, asks for; "" where none does."""
    name = fp if isinstance(fp, (str, bytes, os.PathLike)) else getattr(fp, "name", "")
    if not isinstance(name, (str, bytes, os.PathLike)):
        return ""
    suffix = os.path.splitext(os.fsdecode(name))[1].lower()
    return plugins.SUFFIXES.get(suffix) or Image.registered_extensions().get(suffix, "")
