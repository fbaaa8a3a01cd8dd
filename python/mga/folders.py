"""Which files of a folder are images."""

from __future__ import annotations

from pathlib import Path

from mga_kernels.errors import ImageError

EXTENSIONS = frozenset(
    ".png .jpg .jpeg .mpo .webp .tif .tiff .bmp .gif .ppm .pgm .pbm .pnm .jp2 .j2k .avif .tga".split()
)


def list_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """(images, other files) directly inside ``folder``, by name. Hidden files and subfolders are in neither."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except FileNotFoundError:
        raise ImageError(f"the folder {folder} does not exist") from None
    except OSError as problem:
        raise ImageError(f"{folder} cannot be read as a folder ({problem.strerror})") from problem
    images = [path for path in files if path.suffix.lower() in EXTENSIONS]
    return images, [path for path in files if path.suffix.lower() not in EXTENSIONS]
