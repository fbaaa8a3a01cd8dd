"""What stands beside the pixels of a photograph: EXIF, XMP, IPTC, ICC profile, resolution, comments."""

from __future__ import annotations

import re
import struct
from typing import Any

from PIL import Image

KEPT = ("icc_profile", "exif", "xmp", "dpi", "comment")
_PNG_COLOUR = ("gamma", "chromaticity", "srgb")
_IPTC_RESOURCE, _IPTC_TAG = 0x0404, 33723
_ORIENTATION, _EXIF_IFD, _PIXEL_WIDTH, _PIXEL_HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003
# Tags that describe how a TIFF stores its own pixels; they would be wrong in any other file.
_STRUCTURAL = frozenset((254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325))
_STRUCTURAL |= {330, 338, 339, 347, 513, 514, 529, 530, 531, 532, 700, _IPTC_TAG, 34377, 34675}
# What Pillow's parser of tags raises on damaged ones.
_DAMAGED = (ArithmeticError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)


def read_metadata(image: Image.Image, notes: list[str]) -> dict[str, Any]:
    """The metadata of a loaded Pillow image, under the names of ``Image.info``, plus "iptc" and "text" (PNG)."""
    info = {key: image.info[key] for key in (*KEPT, *_PNG_COLOUR) if image.info.get(key)}
    if "xmp" in info and isinstance(info["xmp"], str):
        info["xmp"] = info["xmp"].encode()
    if "dpi" in info and not all(value > 0 for value in info["dpi"]):
        del info["dpi"]
    if image.info.get("srgb") is not None:
        info["srgb"] = image.info["srgb"]
    if "exif" not in info:
        try:
            exif = image.getexif()
            for tag in _STRUCTURAL & set(exif):
                del exif[tag]
            if len(exif):
                info["exif"] = exif.tobytes()
        except _DAMAGED as problem:
            notes.append(f"its EXIF data is damaged and was left out ({problem})")
    iptc = image.info.get("photoshop", {}).get(_IPTC_RESOURCE)
    if iptc is None and hasattr(image, "tag_v2"):
        iptc = image.tag_v2.get(_IPTC_TAG)
    if isinstance(iptc, bytes):
        info["iptc"] = iptc
    text = {key: str(value) for key, value in getattr(image, "text", {}).items() if "xmp" not in key.lower()}
    text = {key: value for key, value in text.items() if not key.startswith("Raw profile type")}
    return info | ({"text": text} if text else {})


def orientation(image: Image.Image, notes: list[str]) -> int:
    """The EXIF (or XMP) orientation, 1..8; 1 where there is none."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGED as problem:
        notes.append(f"its EXIF orientation is damaged and was ignored ({problem})")
        return 1
    return value if value in range(1, 9) else 1


def upright(info: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """The metadata of an image that has been turned upright: orientation 1 in EXIF and XMP, and no EXIF thumbnail."""
    info = dict(info)
    if "exif" in info:
        turned = patch_exif(info["exif"], {_ORIENTATION: 1})
        info["exif"] = patch_exif(turned, {}, drop_thumbnail=True)
        if info["exif"] != turned:
            notes.append("the thumbnail inside its EXIF data was left out, because it is not upright")
    if "xmp" in info:
        info["xmp"] = re.sub(rb'(tiff:Orientation(?:="|>))[2-8]', rb"\g<1>1", info["xmp"])
    return info


def resized(info: dict[str, Any], width: int, height: int) -> dict[str, Any]:
    """The metadata of an image of another size: EXIF's own record of width and height is brought up to date."""
    if "exif" not in info:
        return info
    return info | {"exif": patch_exif(info["exif"], {_PIXEL_WIDTH: width, _PIXEL_HEIGHT: height})}


def patch_exif(exif: bytes, values: dict[int, int], drop_thumbnail: bool = False) -> bytes:
    """Overwrite integer tags that are present in IFD0 and the Exif IFD; every other byte stays as it is.

    Writing EXIF anew would move the maker's notes, whose offsets only the maker knows. Damaged EXIF comes back as is.
    """
    data = bytearray(exif)
    base = 6 if data[:6] == b"Exif\0\0" else 0
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[base : base + 2]))
    if order is None:
        return exif

    def patch(offset: int) -> tuple[int, int | None]:
        """Patch one IFD; returns where its pointer to the next IFD is, and the offset of the Exif IFD in it."""
        (count,) = struct.unpack_from(order + "H", data, base + offset)
        exif_ifd = None
        for at in range(base + offset + 2, base + offset + 2 + 12 * count, 12):
            tag, kind, _ = struct.unpack_from(order + "HHI", data, at)
            if tag == _EXIF_IFD:
                exif_ifd = struct.unpack_from(order + "I", data, at + 8)[0]
            elif tag in values and kind in (3, 4):
                kind = 4 if values[tag] > 0xFFFF else kind
                struct.pack_into(order + "HI", data, at + 2, kind, 1)
                struct.pack_into(order + ("I" if kind == 4 else "HH"), data, at + 8, *[values[tag], 0][: 5 - kind])
        return base + offset + 2 + 12 * count, exif_ifd

    try:
        end, exif_ifd = patch(struct.unpack_from(order + "I", data, base + 4)[0])
        if drop_thumbnail:
            struct.pack_into("I", data, end, 0)
        if exif_ifd is not None:
            patch(exif_ifd)
    except struct.error:
        return exif
    return bytes(data)


def iptc_segment(iptc: bytes) -> bytes:
    """IPTC captions as the JPEG segment (APP13) that holds them; empty where they are too long for one."""
    resource = b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    body = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body if len(body) + 2 <= 0xFFFF else b""


def png_colour_chunks(info: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """gAMA, cHRM and sRGB of a PNG file as they were read; an ICC profile overrides them, so none goes beside one."""
    if "icc_profile" in info:
        return []
    chunks = []
    if "gamma" in info:
        chunks.append((b"gAMA", struct.pack(">I", round(info["gamma"] * 100000))))
    if "chromaticity" in info:
        chunks.append((b"cHRM", struct.pack(">8I", *(round(value * 100000) for value in info["chromaticity"]))))
    if "srgb" in info:
        chunks.append((b"sRGB", struct.pack("B", info["srgb"])))
    return chunks


def tiff_tags(info: dict[str, Any]) -> Image.Exif:
    """EXIF, XMP and IPTC as the tags of a TIFF file."""
    tags = Image.Exif()
    if "exif" in info:
        tags.load(info["exif"])
    for tag in _STRUCTURAL & set(tags):
        del tags[tag]
    for tag, key in ((700, "xmp"), (_IPTC_TAG, "iptc")):
        if key in info:
            tags[tag] = info[key]
    return tags
