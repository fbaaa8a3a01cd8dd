"""Made-up pictures and metadata for the tests of reading and writing, and of training."""

from functools import cache

import numpy as np
from PIL import Image, ImageCms

from mga.evaluation.resize import imresize

ORIENTATION, MAKE, WIDTH, HEIGHT = 0x0112, 0x010F, 0xA002, 0xA003


def picture(height=6, width=9, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth_picture(height, width, seed):
    """A picture of soft spots, which has something to restore and little noise; sides are multiples of 8."""
    return imresize(picture(height // 8, width // 8, seed=seed), 8)


def save_smooth_picture(path, height, width, seed):
    Image.fromarray(smooth_picture(height, width, seed)).save(path)


@cache
def profile():
    """An sRGB profile; made once, because the time of its making stands in it."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def make_exif(orientation=1, width=9, height=6):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[MAKE] = "A camera"
    exif.get_ifd(0x8769).update({WIDTH: width, HEIGHT: height, 0x829A: 0.008})
    exif.get_ifd(0x8825).update({1: "N"})
    return exif.tobytes()
