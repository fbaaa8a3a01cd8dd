"""``mga test-sets DIV8K/ -o testsets/``: the HR images of Test2K and Test4K, as ClassSR (CVPR 2021) makes them.

Of DIV8K, images 1201 to 1300 become Test2K and 1301 to 1400 Test4K, by MATLAB's bicubic, cropped to a multiple of the
factor first; the LR images are made of them by ``mga evaluate``. ClassSR says which images, and "2K" and "4K"; the
factors 4 and 2 are not written there, but images of 8K then have those names, and the mean sizes that follow from the
counts in the mask-guided paper (1.8 and 6.9 million HR pixels) have about the ratio of these factors. The paper speaks
of images 1201 to 1400 for both sets, which this takes for ClassSR's two halves. Figures on sets made here can therefore
differ from published ones.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from rich.progress import track

from mga_kernels.errors import ImageError
from mga_kernels.files import writable_folder
from mga_kernels.images import Photo, read_image, save_image

from .folders import Failures, list_images
from .resize import shrink_for_scale

SETS = {"Test2K": (range(1201, 1301), 4), "Test4K": (range(1301, 1401), 2)}  # images, factor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIV8K", help="folder of DIV8K's images, named by their number")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help="gets NAME/HR for each set")
    parser.add_argument("--only", nargs="+", choices=tuple(SETS), default=list(SETS), help="default: both")


def run(args: argparse.Namespace) -> int:
    """The command; images that are there already stay, and one that fails does not keep the others from being made."""
    files = numbered(args.folder)
    for name in args.only:
        wanted, factor = SETS[name]
        if missing := [number for number in wanted if number not in files]:
            raise ImageError(
                f"test-sets: {args.folder} lacks {len(missing)} of the images {wanted[0]} to {wanted[-1]} of {name}, "
                f"the first is {missing[0]}; their names are their numbers, such as {wanted[0]}.png"
            )
    failures = Failures()
    for name in args.only:
        wanted, factor = SETS[name]
        target = args.output / name / "HR"
        writable_folder(target)
        before = failures.count
        for number in track(wanted, f"making {name}"):
            path = target / f"{number}.png"
            with failures.of(files[number]):
                if not os.path.lexists(path):
                    small = shrink_for_scale(read_image(files[number]).rgb, factor)[1]
                    save_image(Photo(small), path, overwrite=False)
        print(f"written: {target}, {len(wanted) - (failures.count - before)} images")
    return failures.exit_code(sum(len(SETS[name][0]) for name in args.only))


def numbered(folder: Path) -> dict[int, Path]:
    """The images of a folder by the number that their name is."""
    files, _ = list_images(folder)
    return {int(path.stem): path for path in files if re.fullmatch(r"\d+", path.stem, re.ASCII)}
