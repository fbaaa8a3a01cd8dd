"""Colour spaces that a file states by numbers instead of an ICC profile, and the profile that says the same.

PNG has code points (cICP) or gamma and chromaticities (gAMA, cHRM), AVIF has the code points (nclx); they are those of
ITU-T H.273. Other formats hold an ICC profile only.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
from PIL import Image, ImageCms

from .info import Info

# White, red, green and blue as x, y.
_D65 = (0.3127, 0.3290)
_BT709 = (*_D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
_PRIMARIES = {
    1: ("BT.709", _BT709),
    4: ("BT.470 M", (0.310, 0.316, 0.670, 0.330, 0.210, 0.710, 0.140, 0.080)),
    5: ("BT.470 BG", (*_D65, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060)),
    6: ("SMPTE 170M", (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    7: ("SMPTE 240M", (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)),
    8: ("film", (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049)),
    9: ("BT.2020", (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    10: ("CIE XYZ", (1 / 3, 1 / 3, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0)),
    11: ("DCI-P3", (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: ("Display P3", (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    22: ("EBU 3213", (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077)),
}
_UNSPECIFIED = 2
_SRGB = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
# Exponent, then where the curve has a straight part a, b, c, d of ICC's parametric curve 3. Viewers show the curves of
# television (1, 6, 14, 15) as that of sRGB, and so does this.
_TRANSFER: dict[int, tuple[str, tuple[float, ...]]] = {
    **dict.fromkeys((1, 6, 13, 14, 15), ("sRGB", _SRGB)),
    4: ("gamma 2.2", (2.2,)),
    5: ("gamma 2.8", (2.8,)),
    7: ("SMPTE 240M", (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913)),
    8: ("linear", (1.0,)),
    17: ("gamma 2.6", (2.6,)),
}
_WIDE_RANGE = {9: "logarithmic", 10: "logarithmic", 16: "PQ", 18: "HLG"}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])


@dataclass(frozen=True)
class ColourSpace:
    """``chromaticities``: x and y of white, red, green, blue; ``curve``: as ICC's parametric curves 0 or 3 have it.

    Either is None where no profile can say it.
    """

    name: str
    chromaticities: tuple[float, ...] | None
    curve: tuple[float, ...] | None

    @property
    def is_srgb(self) -> bool:
        if self.chromaticities is None or self.curve is None:
            return False
        near = max(abs(a - b) for a, b in zip(self.chromaticities, _BT709, strict=True)) < 0.005
        return near and (self.curve == _SRGB or (len(self.curve) == 1 and abs(self.curve[0] / 2.2 - 1) < 0.02))


def stated(info: Info) -> ColourSpace | None:
    """What the metadata of an image states by numbers; None where that is nothing."""
    if "cicp" in info:
        return _of_code_points(*info["cicp"])
    if "srgb" in info:
        return ColourSpace("sRGB", _BT709, _SRGB)
    if "gamma" not in info and "chromaticity" not in info:
        return None
    curve = (1 / info["gamma"],) if "gamma" in info else _SRGB
    chromaticities = info.get("chromaticity", _BT709)
    name = f"gamma of {info['gamma']:.4g}" if "gamma" in info else "chromaticities"
    if "gamma" in info and "chromaticity" in info:
        name += " and chromaticities"
    return ColourSpace(name, chromaticities if chromaticities[1] > 0 else None, curve)


def _of_code_points(primaries: int, transfer: int, matrix: int, full_range: int) -> ColourSpace:
    primaries = 1 if primaries == _UNSPECIFIED else primaries
    transfer = 13 if transfer == _UNSPECIFIED else transfer
    space, chromaticities = _PRIMARIES.get(primaries, (f"primaries {primaries}", None))
    curve_name, curve = _TRANSFER.get(transfer, (_WIDE_RANGE.get(transfer, f"transfer {transfer}"), None))
    if not full_range:  # values of 16 to 235, which no profile describes
        return ColourSpace(f"{space}, {curve_name}, limited range", None, None)
    return ColourSpace(f"{space}, {curve_name}", chromaticities, curve)


def icc_profile(space: ColourSpace, grey: bool = False) -> bytes | None:
    """An ICC profile (version 4) of this space, of one channel where ``grey``; None where none can say it."""
    if space.chromaticities is None or space.curve is None or not 0.1 <= space.curve[0] <= 10:
        return None
    kind, values = (0, space.curve) if len(space.curve) == 1 else (3, space.curve)
    curve = struct.pack(">4sIHH", b"para", 0, kind, 0) + _fixed(values)
    tags = {b"desc": _text(space.name), b"cprt": _text("CC0"), b"wtpt": _xyz(_D50)}
    if grey:
        tags[b"kTRC"] = curve
    else:
        adaptation, columns = _colorants(space.chromaticities)
        if not max(np.abs(adaptation).max(), np.abs(columns).max()) < 100:  # damaged numbers, also those that are none
            return None
        tags[b"chad"] = struct.pack(">4sI", b"sf32", 0) + _fixed(adaptation.ravel())
        for name, column in zip("rgb", columns.T, strict=True):
            tags[name.encode() + b"XYZ"], tags[name.encode() + b"TRC"] = _xyz(column), curve
    return _assembled(tags, b"GRAY" if grey else b"RGB ")


def _colorants(chromaticities: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The matrix that adapts XYZ to D50, the white of profiles, and red, green and blue there as columns."""
    points = np.array(chromaticities, np.float64).reshape(4, 2)
    points = np.column_stack([points, 1 - points.sum(1)])
    white, directions = points[0] / points[0, 1], points[1:].T
    if abs(np.linalg.det(directions)) < 1e-6:  # on one line
        return np.full((3, 3), np.nan), directions
    with np.errstate(all="ignore"):
        gain = (_BRADFORD @ _D50) / (_BRADFORD @ white)
        adaptation = np.linalg.inv(_BRADFORD) @ (gain[:, None] * _BRADFORD)
        return adaptation, adaptation @ (directions * np.linalg.solve(directions, white))


def _fixed(values: Iterable[float]) -> bytes:
    return b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def _xyz(values: np.ndarray) -> bytes:
    return struct.pack(">4sI", b"XYZ ", 0) + _fixed(values)


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return struct.pack(">4sIII2s2sII", b"mluc", 0, 1, 12, b"en", b"US", len(data), 28) + data


def _assembled(tags: dict[bytes, bytes], space: bytes) -> bytes:
    """Header, table of tags, and their values; equal ones are stored once."""
    table, body, places = [], b"", {}
    begin = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        if value not in places:
            places[value] = begin + len(body)
            body += value + bytes(-len(value) % 4)
        table.append(struct.pack(">4sII", name, places[value], len(value)))
    header = struct.pack(">I4sI4s4s4s", begin + len(body), bytes(4), 0x04300000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H4s", 2025, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed(_D50) + bytes(48)
    return header + struct.pack(">I", len(tags)) + b"".join(table) + body


def in_srgb(image: Image.Image, info: Info, notes: list[str]) -> tuple[Image.Image, Info]:
    """(image, metadata) for a format that holds no colour space: the colours become those of sRGB, if they are others.

    Grey stays as it is, with its profile in the metadata, and so does what no profile describes.
    """
    space, rest = stated(info), {key: value for key, value in info.items() if key not in _SPACES}
    profile = info.get("icc_profile") or (icc_profile(space) if space is not None and not space.is_srgb else None)
    if profile is None:
        return image, rest if space is None or space.is_srgb else info
    try:
        own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        if ImageCms.getProfileDescription(own).startswith("sRGB"):
            return image, rest
        if image.mode not in ("RGB", "RGBA"):
            return image, info
        converted = ImageCms.profileToProfile(image, own, srgb, outputMode=image.mode)
    except (ImageCms.PyCMSError, OSError):
        return image, info
    notes.append("its colours were converted to sRGB, as Pillow's plug-in writes no colour space into JPEG XL")
    return cast(Image.Image, converted), rest


_SPACES = ("icc_profile", "cicp", "gamma", "chromaticity", "srgb")
