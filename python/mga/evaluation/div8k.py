"""``mga test-sets DIV8K/ -o testsets/``: the HR images of Test2K and Test4K, as ClassSR (CVPR 2021) makes them.

Of DIV8K, images 1201 to 1300 become Test2K and 1301 to 1400 Test4K, by MATLAB's bicubic, cropped to a multiple of the
factor first; the LR images are made of them by ``mga evaluate``. ClassSR says which images, and "2K" and "4K"; the
factors 4 and 2 are not written there, but images of 8K then have those names, and the mean sizes that follow from the
counts in the mask-guided paper (1.8 and 6.9 million HR pixels) have about the ratio of these factors. The paper speaks
of images 1201 to 1400 for both sets, which this takes for ClassSR's two halves. Figures on sets made here can therefore
differ from published ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from mga_kernels.errors import ImageError
from mga_kernels.images import Photo, read_image, save_image
from mga_kernels.system.files import writable_folder

from ..console.failures import Failures
from ..files.folders import list_images
from .resize import shrink_for_scale

SETS = {"Test2K": (range(1201, 1301), 4), "Test4K": (range(1301, 1401), 2)}  # images, factor


def make_sets(folder: Path, output: Path, names: Sequence[str], failures: Failures) -> int:
    """Make the sets of these names; returns the number of their images.

    Images that are there already stay. One that fails is one of the ``failures``, and the others are made.
    """
    files = numbered(folder)
    for name in names:
        wanted, factor = SETS[name]
        if missing := [number for number in wanted if number not in files]:
            raise ImageError(
                f"test-sets: {folder} lacks {len(missing)} of the images {wanted[0]} to {wanted[-1]} of {name}, "
                f"the first is {missing[0]}; their names are their numbers, such as {wanted[0]}.png"
            )
    for name in names:
        wanted, factor = SETS[name]
        target = output / name / "HR"
        writable_folder(target)
        before = failures.count
        for number in track(wanted, f"making {name}"):
            path = target / f"{number}.png"
            with failures.of(files[number]):
                if not os.path.lexists(path):
                    small = shrink_for_scale(read_image(files[number]).rgb, factor)[1]
                    save_image(Photo(small), path, overwrite=False)
        print(f"written: {target}, {len(wanted) - (failures.count - before)} images")
    return sum(len(SETS[name][0]) for name in names)


def numbered(folder: Path) -> dict[int, Path]:
    """The images of a folder by the number that their name is."""
    files, _ = list_images(folder)
    return {int(path.stem): path for path in files if re.fullmatch(r"\d+", path.stem, re.ASCII)}
