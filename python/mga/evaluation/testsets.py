"""Test sets as people have them: which HR image belongs to which LR image, in the usual folder layouts.

A set NAME at scale s is found as

    NAME/HR + NAME/LR_bicubic/Xs        LR files called IMAGExs or IMAGE (also LR_bicubic/xs, LR/xs, LR/Xs)
    NAME/GTmod12 + NAME/LRbicxs         the same names in both (also GT or original beside LRbicxs)
    NAME/image_SRF_s                    IMAGE_SRF_s_HR and IMAGE_SRF_s_LR side by side
    NAME_HR + NAME_LR_bicubic/Xs        DIV2K
    HR/NAME/xs + LR/LRBI/NAME/xs        IMAGE_HR_xs and IMAGE_LRBI_xs
    NAME/IMAGE                          HR images alone

Where a layout has no LR images of this scale they are made by MATLAB's bicubic (``mga.evaluation.resize``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mga_kernels.errors import ImageError, InputError
from mga_kernels.images import read_image
from mga_kernels.networks.whole import SCALES

from ..files.claim import content_of
from ..files.folders import list_images
from .resize import shrink_for_scale

HR_FOLDERS = ("HR", "GTmod12", "GT", "original")
TRIED = 3  # pairs whose sizes tell the scale
LR_FOLDERS = ("LR_bicubic/X{s}", "LR_bicubic/x{s}", "LRbicx{s}", "LR/X{s}", "LR/x{s}")


@dataclass(frozen=True)
class ImageSet:
    """A test set: (HR file, LR file or None where the LR image is to be made)."""

    name: str
    pairs: tuple[tuple[Path, Path | None], ...]

    @property
    def given_lr(self) -> bool:
        return all(lr is not None for _, lr in self.pairs)

    def fingerprint(self) -> str:
        """Changes with the names and the content of the files."""
        text = []
        for path in (path for pair in self.pairs for path in pair):
            text.append(repr(None if path is None else (path.name, content_of(path, "evaluate"))))
        return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]


def find_sets(folder: Path, scale: int, only: Sequence[str] = ()) -> list[ImageSet]:
    """The sets in ``folder``, or ``folder`` itself as one, by name; ImageError where there is none or one is missing.

    Folders without images in one of the layouts are passed over.
    """
    list_images(folder)  # says what is wrong with the folder itself
    own = _set_in(folder, scale)
    sets = {own.name: own} if own else {}
    if not own:
        children = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        found = [_beside(path, scale) or _set_in(path, scale) for path in children]
        found += [_in_benchmark(folder, path.name, scale) for path in _subfolders(folder / "HR")]
        sets = {one.name: one for one in found if one}
    if not sets:
        layouts = f"NAME/HR, NAME/GTmod12, NAME/image_SRF_{scale} or plain folders of images"
        raise ImageError(f"evaluate: there is no test set in {folder}; what can be found is {layouts}")
    missing = [name for name in only if name not in sets]
    if missing:
        raise ImageError(f"evaluate: {folder} holds no test set {missing[0]}, only {', '.join(sorted(sets))}")
    return [sets[name] for name in (only or sorted(sets))]


def one_set(name: str, hr_folder: Path, lr_folder: Path | None, scale: int) -> ImageSet:
    return ImageSet(name, tuple(find_pairs(hr_folder, lr_folder, scale)))


def find_pairs(hr_folder: Path, lr_folder: Path | None, scale: int) -> list[tuple[Path, Path | None]]:
    """HR files, each with its LR file (None where the LR image is to be made)."""
    hr_files, _ = list_images(hr_folder)
    if not hr_files:
        raise ImageError(f"evaluate: there is no image in {hr_folder}")
    stems: dict[str, Path] = {}
    for path in hr_files:
        if path.stem in stems:
            raise ImageError(f"evaluate: {stems[path.stem]} and {path} have the same name; remove one")
        stems[path.stem] = path
    if lr_folder is None:
        return [(path, None) for path in hr_files]
    return list(_paired(hr_files, list_images(lr_folder)[0], lr_folder, scale))


def load_pair(hr_path: Path, lr_path: Path | None, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """(hr, lr) as uint8 (H, W, 3), HR cropped to a multiple of the scale. Grey images become three equal channels."""
    hr = read_image(hr_path).rgb
    if min(hr.shape[:2]) < scale:
        raise ImageError(f"evaluate: {hr_path} ({hr.shape[1]}x{hr.shape[0]}) is too small for x{scale}")
    if lr_path is None:
        return shrink_for_scale(hr, scale)
    lr = read_image(lr_path).rgb
    height, width = (side // scale for side in hr.shape[:2])
    if lr.shape[:2] != (height, width):
        raise ImageError(
            f"evaluate: {lr_path} is {lr.shape[1]}x{lr.shape[0]}, but {hr_path} ({hr.shape[1]}x{hr.shape[0]}) "
            f"at x{scale} needs {width}x{height}; was it made for another scale?"
        )
    return hr[: height * scale, : width * scale], lr


def fitting_scales(hr_folder: Path, lr_folder: Path) -> tuple[list[int], list[str]]:
    """The scales between the images of the same names in two folders, as the sizes of the first ones tell; why not."""
    found, problems = [], []
    for scale in SCALES:
        try:
            for pair in find_pairs(hr_folder, lr_folder, scale)[:TRIED]:
                load_pair(*pair, scale)
        except ImageError as problem:
            problems.append(str(problem))
        else:
            found.append(scale)
    return found, problems


def scale_of(hr_folder: Path, lr_folder: Path) -> int:
    """The scale between two folders; ImageError where their images cannot be read, InputError where none or two fit."""
    found, problems = fitting_scales(hr_folder, lr_folder)
    if len(problems) == len(SCALES) and len(set(problems)) == 1:
        raise ImageError(problems[0])
    if len(found) != 1:
        fit = " and ".join(f"x{scale}" for scale in found) or f"none of x{', x'.join(map(str, SCALES))}"
        raise InputError(f"evaluate: --scale is missing, and the images in {hr_folder} and {lr_folder} fit {fit}")
    return found[0]


def only_scale(hr_folder: Path | None, lr_folder: Path | None) -> int | None:
    """The scale between two folders, if both are given and their images tell it."""
    if hr_folder is None or lr_folder is None or not hr_folder.is_dir():
        return None
    found, _ = fitting_scales(hr_folder, lr_folder)
    return found[0] if len(found) == 1 else None


def image_name(hr_path: Path, scale: int) -> str:
    """The name of an image without what a layout adds to it."""
    for ending in (f"_SRF_{scale}_HR", f"_HR_x{scale}"):
        if hr_path.stem.endswith(ending):
            return hr_path.stem.removesuffix(ending)
    return hr_path.stem


def _paired(
    hr_files: Sequence[Path], lr_files: Sequence[Path], where: Path, scale: int
) -> tuple[tuple[Path, Path | None], ...]:
    by_stem = {path.stem: path for path in lr_files}
    endings = (f"x{scale}", "", f"_SRF_{scale}_LR", f"_LRBI_x{scale}")
    partners = []
    for path in hr_files:
        name = image_name(path, scale)
        partners.append(next((by_stem[name + end] for end in endings if name + end in by_stem), None))
    missing = [path.name for path, partner in zip(hr_files, partners, strict=True) if partner is None]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ImageError(f"evaluate: {where} holds no LR image of {', '.join(missing[:3])}{more}")
    return tuple(zip(hr_files, partners, strict=True))


def _set_in(folder: Path, scale: int) -> ImageSet | None:
    """The set whose folder this is."""
    mixed = folder / f"image_SRF_{scale}"
    if mixed.is_dir():
        files, _ = list_images(mixed)
        hr = [path for path in files if path.stem.endswith("_HR")]
        if hr:
            return ImageSet(folder.name, _paired(hr, files, mixed, scale))
    for name in HR_FOLDERS:
        if _has_images(folder / name):
            return one_set(folder.name, folder / name, _lr_folder(folder, scale), scale)
    return one_set(folder.name, folder, None, scale) if _has_images(folder) else None


def _lr_folder(folder: Path, scale: int) -> Path | None:
    candidates = (folder / pattern.format(s=scale) for pattern in LR_FOLDERS)
    return next((path for path in candidates if _has_images(path)), None)


def _beside(folder: Path, scale: int) -> ImageSet | None:
    """NAME of NAME_HR, with the LR images in NAME_LR_bicubic/Xs."""
    name = folder.name.removesuffix("_HR")
    if name == folder.name or not _has_images(folder):
        return None
    lr = folder.with_name(f"{name}_LR_bicubic") / f"X{scale}"
    return one_set(name, folder, lr if _has_images(lr) else None, scale)


def _in_benchmark(folder: Path, name: str, scale: int) -> ImageSet | None:
    """NAME of HR/NAME/xs and LR/LRBI/NAME/xs."""
    hr, lr = folder / "HR" / name / f"x{scale}", folder / "LR/LRBI" / name / f"x{scale}"
    return one_set(name, hr, lr if _has_images(lr) else None, scale) if _has_images(hr) else None


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _has_images(folder: Path) -> bool:
    return folder.is_dir() and bool(list_images(folder)[0])
