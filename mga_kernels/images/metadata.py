"""What stands beside the pixels of a photograph: EXIF, XMP, IPTC, ICC profile, colour space, resolution, comments."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import BinaryIO, SupportsInt, cast

from PIL import Image

from . import exif as exif_block
from . import xmp as xmp_packet
from .boxes import avif_code_points, jp2_metadata
from .colour import stated
from .exif import ORIENTATION, PREFIX, STRUCTURAL, from_tags, one_prefix, patch_exif, with_header, without_turn
from .headers import bmp_profile
from .ifd import EXIF_IFD, GPS_IFD, INTEROP_IFD, LONG, POINTERS, read_tags
from .info import Info
from .jxl import xmp as jxl_xmp
from .png import code_points
from .tiff import IPTC, LAYERS, RESOURCES, XMP

__all__ = ["known", "patch_exif", "pillows_orientation", "read_metadata", "resized", "stated_in_file"]

_IPTC_RESOURCE = 0x0404
_RAW_PROFILE = "Raw profile type "  # how ImageMagick stores in texts of a PNG what has no chunk
# What Pillow's parser of tags raises on damaged ones.
_DAMAGED = (ArithmeticError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)


def known(info: Info | Mapping[str | tuple[int, int], object]) -> Info:
    """Of ``PIL.Image.info`` what is kept, as far as it is what its name says: a text in a PNG may have any name."""
    kept: Info = {
        key: info[key] for key in ("icc_profile", "exif", "iptc") if isinstance(info.get(key), bytes) and info[key]
    }
    packet = info.get("xmp") or info.get("XML:com.adobe.xmp")
    if isinstance(packet, (str, bytes)):
        kept["xmp"] = packet.encode() if isinstance(packet, str) else packet
    if isinstance(info.get("comment"), (str, bytes)) and info["comment"]:
        kept["comment"] = info["comment"]
    for key, count, least in (("dpi", 2, 0.0), ("gamma", 1, 0.0), ("chromaticity", 8, -1.0)):
        numbers = _numbers(info.get(key), count)
        if numbers and min(numbers) > least:
            kept[key] = numbers if count > 1 else numbers[0]
    if info.get("srgb") in (0, 1, 2, 3):
        kept["srgb"] = info["srgb"]
    cicp = info.get("cicp")
    if isinstance(cicp, tuple) and len(cicp) == 4:
        kept["cicp"] = cicp
    if isinstance(info.get("text"), dict) and info["text"]:
        kept["text"] = info["text"]
    return kept


def _numbers(value: object, count: int) -> tuple[float, ...]:
    """``count`` finite numbers, or nothing."""
    values = value if isinstance(value, (tuple, list)) else (value,)
    try:
        numbers = tuple(float(number) for number in values if not isinstance(number, (str, bytes, bool)))
    except (TypeError, ValueError, ArithmeticError):
        return ()
    return numbers if len(numbers) == count == len(values) and all(map(math.isfinite, numbers)) else ()


def stated_in_file(image: Image.Image, stream: BinaryIO | None, notes: list[str]) -> Info:
    """What the file of ``image`` holds and Pillow does not tell, or not as it is; ``stream`` keeps its position.

    Colour spaces stated by numbers, the profile of a BMP, all metadata of JPEG 2000, EXIF, XMP and IPTC of TIFF. Empty
    without a stream.
    """
    if stream is None:
        return {}
    position = stream.tell()
    try:
        if image.format == "TIFF":
            found: Info = _of_tiff(stream, notes)
        elif image.format == "JPEG2000":
            found = jp2_metadata(stream)
        elif image.format == "BMP":
            found = {"icc_profile": bmp_profile(stream)}
        elif image.format == "PNG":
            found = {"cicp": code_points(stream)}
        elif image.format == "JXL":
            found = {"xmp": jxl_xmp(stream, notes)}
        else:
            cicp = avif_code_points(stream) if image.format in ("AVIF", "HEIF") else None
            space = stated({"cicp": cicp}) if cicp else None
            found = {} if space is None or space.is_srgb else {"cicp": cicp}
    except (OSError, ValueError, struct.error):
        return {}
    finally:
        stream.seek(position)
    return {key: value for key, value in found.items() if value is not None}


def _of_tiff(stream: BinaryIO, notes: list[str]) -> dict[str, bytes]:
    """EXIF (empty where there is none), XMP and IPTC from the tags of a TIFF file."""
    found = {}
    order, tags, damaged = read_tags(stream, STRUCTURAL - {XMP, IPTC, RESOURCES, LAYERS})
    if tags.pop(LAYERS, None):
        notes.append("its layers were left out")
    values = {tag: tags.pop(tag) for tag in (XMP, IPTC, RESOURCES) if tag in tags}
    for tag, key in ((XMP, "xmp"), (IPTC, "iptc")):
        kind, value = values.get(tag, (0, b""))
        if isinstance(value, bytes) and value:
            reverse = tag == IPTC and kind == LONG and value[3:4] == b"\x1c" != value[:1]  # written as numbers
            found[key] = b"".join(value[i : i + 4][::-1] for i in range(0, len(value), 4)) if reverse else value
    resources = values.get(RESOURCES, (0, b""))[1]
    if isinstance(resources, bytes) and (captions := _resource(resources, _IPTC_RESOURCE)):
        found.setdefault("iptc", captions)
    found["exif"], lost = from_tags(tags, order)
    if damaged or lost:
        notes.append("some of its tags are damaged and were left out")
    return found


def read_metadata(image: Image.Image, notes: list[str], stated_there: Info) -> tuple[Info, int]:
    """The metadata of a loaded Pillow image that is to stand upright, and the orientation (1..8) to be applied yet.

    They come under the names of ``Image.info``, plus "iptc", "text" (PNG) and "cicp". ``stated_there``: more of them
    under the same names, from ``stated_in_file``, or from what Pillow was not shown of the file.
    """
    info = known(image.info)
    profile = image.info.get("icc_profile", b"")
    if not isinstance(profile, bytes) and "icc_profile" not in stated_there:
        notes.append("its ICC profile is damaged and was left out")
    from_info = "exif" in info and not info["exif"].startswith(PREFIX * 3)
    if hasattr(image, "tag_v2") or not {"exif", _RAW_PROFILE + "exif"} & set(image.info):
        made = None if "exif" in stated_there else _made_exif(image, notes)
        info, from_info = (info | {"exif": made}, True) if made else (info, from_info)
    _add_texts(info, image, stated_there.get("text", {}), notes)
    info |= {key: value for key, value in stated_there.items() if key != "text" and value}
    resources = image.info.get("photoshop")
    if isinstance(resources, dict) and isinstance(resources.get(_IPTC_RESOURCE), bytes):
        info.setdefault("iptc", resources[_IPTC_RESOURCE])
    if block := one_prefix(info.pop("exif", b"")):
        if readable := with_header(block):
            info["exif"] = readable
        else:
            notes.append("its EXIF data is damaged and was left out")
    if "xmp" in info:
        info["xmp"] = _as_utf8(info["xmp"])
    # Pillow turns TIFF files itself, when it loads them.
    turn = 1 if hasattr(image, "tag_v2") else _orientation(image, info, from_info, notes)
    return _upright(info, turn, notes), turn


def _made_exif(image: Image.Image, notes: list[str]) -> bytes | None:
    """The EXIF block that Pillow makes of what an image has no block of; the caller's tags stay as they are."""
    made = Image.Exif()
    try:
        tags = image.getexif()
        turned = {ORIENTATION} if hasattr(image, "tag_v2") else set()  # by Pillow
        for tag in set(tags) - STRUCTURAL - POINTERS - turned:
            made[tag] = tags[tag]
        alone = set(made) == {ORIENTATION}  # which may stand in XMP
        for pointer in (EXIF_IFD, GPS_IFD):
            nested = dict(tags.get_ifd(pointer))
            if INTEROP_IFD in nested:
                nested[INTEROP_IFD] = dict(tags.get_ifd(INTEROP_IFD))
            if nested:
                made.get_ifd(pointer).update(nested)
                alone = False
        return made.tobytes() if not alone and (len(made) or made.get_ifd(EXIF_IFD) or made.get_ifd(GPS_IFD)) else None
    except _DAMAGED as problem:
        notes.append(f"its EXIF data is damaged and was left out ({problem})")
        return None


def _add_texts(info: Info, image: Image.Image, rescued: dict[str, str], notes: list[str]) -> None:
    """The texts of a PNG file, and what is stored as texts there for want of a chunk."""
    texts = {**getattr(image, "text", {}), **rescued}
    for key in [key for key in texts if key.startswith(_RAW_PROFILE)]:
        kind, data = key.removeprefix(_RAW_PROFILE).lower(), _raw_profile(texts.pop(key))
        if data and kind in ("exif", "app1") and (data.startswith(PREFIX) or data[:2] in (b"II", b"MM")):
            info.setdefault("exif", data)
        elif data and kind in ("xmp", "app1"):
            info.setdefault("xmp", data.rpartition(b"\0")[2] if data.startswith(b"http") else data)
        elif data and kind in ("iptc", "8bim"):
            info.setdefault("iptc", _resource(data, _IPTC_RESOURCE) or data)
        elif data and kind in ("icc", "icm"):
            info.setdefault("icc_profile", data)
        else:
            notes.append(f"its text {key!r}, which holds no metadata that is known here, was left out")
    texts = {key: value for key, value in texts.items() if key not in ("XML:com.adobe.xmp", "exif")}
    if texts:
        info["text"] = texts


def _raw_profile(text: str) -> bytes | None:
    """Name, length and hexadecimal digits -> the bytes."""
    try:
        _, length, *digits = text.split()
        return bytes.fromhex("".join(digits))[: int(length)]
    except ValueError:
        return None


def _resource(resources: bytes, wanted: int) -> bytes | None:
    """One of Photoshop's resources; None where it is not there."""
    at = 0
    while resources[at : at + 4] == b"8BIM" and len(resources) >= at + 12:
        code, name = struct.unpack_from(">HB", resources, at + 4)
        at += 6 + (name + 2) // 2 * 2
        if len(resources) < at + 4:
            break
        (length,) = struct.unpack_from(">I", resources, at)
        if code == wanted:
            return resources[at + 4 : at + 4 + length]
        at += 4 + length + length % 2
    return None


def _as_utf8(packet: bytes) -> bytes:
    """The packet in the encoding that all but TIFF demand, without zeros at its end."""
    for start, codec in (
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
        (b"<\0", "utf-16-le"),
        (b"\0<", "utf-16-be"),
    ):
        if packet.startswith(start):
            return packet.decode(codec, "replace").encode()
    return packet.rstrip(b"\0")


def pillows_orientation(image: Image.Image) -> object:
    """The orientation by which Pillow would turn an image, None where it finds none."""
    try:
        return image.getexif().get(ORIENTATION)
    except _DAMAGED:
        return None


def pillows_orientation_of(exif: bytes) -> object:
    """The same of an image that has this block."""
    image = Image.Image()
    image.info["exif"] = exif
    return pillows_orientation(image)


def _orientation(image: Image.Image, info: Info, from_info: bool, notes: list[str]) -> int:
    """The orientation, 1..8, of EXIF, or of XMP where EXIF states none; 1 where there is none."""
    if image.format == "JXL" and not getattr(image, "jpeg", False):  # turned by its decoder; EXIF has no say there
        return 1
    told = pillows_orientation(image)
    if told is None and "exif" in info and not from_info:  # which Pillow has not seen
        told = pillows_orientation_of(info["exif"])
    if told is None and "xmp" in info:
        told = xmp_packet.orientation(info["xmp"])
    if told is None:
        return 1
    if told in range(1, 9):
        return int(cast(SupportsInt, told))  # of some files a fraction
    if not isinstance(told, int):
        notes.append("its EXIF orientation is no number and was ignored")
    return 1


def _upright(info: Info, turn: int, notes: list[str]) -> Info:
    """The metadata of an image that stands upright, by ``turn`` if need be, and alone in its file."""
    info = dict(info)
    if "exif" in info:
        upright = without_turn(info["exif"])
        info["exif"] = patch_exif(upright, {}, drop_thumbnail=turn != 1)
        if info["exif"] != upright:
            notes.append("the thumbnail inside its EXIF data was left out, because it is not upright")
    if "xmp" in info:
        info["xmp"], said = xmp_packet.alone(info["xmp"], turn != 1)
        notes += said
    return info


def resized(info: Info, before: tuple[int, int], after: tuple[int, int]) -> Info:
    """The metadata of an image that was (width, height) ``before``: what EXIF and XMP say of its size is updated."""
    info = dict(info)
    if "exif" in info:
        info["exif"] = exif_block.resized(info["exif"], *after)
    if "xmp" in info:
        info["xmp"] = xmp_packet.resized(info["xmp"], *after, after[0] / before[0], after[1] / before[1])
    return info
