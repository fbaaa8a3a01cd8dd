"""Which photographs ``mga upscale`` is to work on, and where their results go: decided before the first is touched."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mga_kernels.errors import ImageError, InputError
from mga_kernels.images import FORMATS, KEPT, LOSSY, AtMost, Quality, check_output, result_suffix
from mga_kernels.images.size import Size
from mga_kernels.system.files import Identity, are_one_name, identities

from ..console.failures import Failures
from ..files.folders import list_images, subfolders

STREAM = Path("-")  # standard input among the inputs, standard output as the output
EXTENSION = {"png": ".png", "jpg": ".jpg", "jpeg": ".jpg", "webp": ".webp", "tiff": ".tiff", "tif": ".tiff"}
EXTENSION |= {"avif": ".avif", "heic": ".heic", "heif": ".heif", "jxl": ".jxl", "ppm": ".ppm", "gif": ".gif"}
_TOLD = 500  # from one number that is shown to the next


@dataclass(frozen=True)
class Request:
    """What is asked for: ``output`` is a file or a folder by its name, ``format`` a key of EXTENSION.

    ``listed``: further inputs, of a list of files. ``data``: what the input STREAM holds; ``result``: where the output
    STREAM goes. ``quality``: that of ``save_image``, for those results that have one. ``wrap``: left and right edges
    meet, None where metadata say so. ``rank``: which of the ``world`` processes that share the images this one is.
    """

    inputs: Sequence[Path]
    output: str
    format: str | None = None
    save_mask: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    recursive: bool = False
    listed: Sequence[Source] | None = None
    size: Size = field(default_factory=Size)
    quality: Quality = None
    wrap: bool | None = None
    rank: int = 0
    world: int = 1
    data: bytes | None = None
    result: BinaryIO | None = None

    def kind(self, target: Path, kind: str | None) -> str:
        """The format, a value of FORMATS, of the result of an image that was of ``kind``."""
        if target != STREAM:
            return FORMATS[target.suffix.lower()]
        if self.format is not None:
            return FORMATS[EXTENSION[self.format]]
        return kind if kind is not None and kind in KEPT else "PNG"


@dataclass(frozen=True)
class Source:
    """An image or folder, and where below the folder of results its result goes, or those of the images in it."""

    path: Path
    below: Path = Path()

    @classmethod
    def listed(cls, path: Path, behind: Path) -> Source:
        """An entry of a list, see ``files.lists``."""
        return cls(path, behind if os.path.isdir(path) else behind.parent)


@dataclass(frozen=True)
class Job:
    """One photograph to upscale, and where its result and the picture of its mask go."""

    source: Path
    target: Path
    mask: Path | None
    below: Path = Path()

    @property
    def behind(self) -> Path:
        """What of the name of ``source`` its result keeps, where that is more than the last part."""
        return self.below / self.source.name if self.below.parts else self.below

    @property
    def name(self) -> str:
        """What errors call the image."""
        return "standard input" if self.source == STREAM else str(self.source)

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files that it makes."""
        target = () if self.target == STREAM else (self.target,)
        return target if self.mask is None else (*target, self.mask)


def find_inputs(request: Request, failures: Failures) -> tuple[list[Source], list[Path]]:
    """(images, files of the folders that are no images). Folders are searched with their subfolders if ``recursive``.

    Of several inputs, or folders in a folder, one that cannot be used is one of the ``failures``; alone it raises
    ImageError. A folder of results within the folder that is searched is none of the inputs.
    """
    sources: list[Source] = []
    passed_over: list[Path] = []
    asked = [*map(Source, request.inputs), *(request.listed or ())]
    for one in asked:
        try:
            images, others = _images_of(one, request, failures)
        except ImageError as error:
            if len(asked) == 1:
                raise
            failures.add(one.path, error, one.below / one.path.name if one.below.parts else one.below)
            continue
        sources += images
        passed_over += others
    if len(asked) > 1:
        first: dict[Path, Source] = {}
        for source in sources:
            first.setdefault(source.path, source)
        sources = list(first.values())
    return sources, passed_over


def _images_of(source: Source, request: Request, failures: Failures) -> tuple[list[Source], list[Path]]:
    path = source.path
    if path == STREAM:
        return [source], []
    if not os.path.isdir(path):
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise ImageError(f"{path} does not exist") from None
        except OSError as problem:
            raise ImageError(f"{path} cannot be opened ({problem.strerror})") from problem
        return [source], []
    found, others = list_images(path)
    images, failed = [Source(image, source.below) for image in found], failures.count
    if request.recursive:
        ours = {os.path.realpath(folder) for folder in (request.output, request.save_mask) if folder}
        deeper = [folder for folder in reversed(subfolders(path)) if os.path.realpath(folder) not in ours]
        while deeper:
            folder = deeper.pop()
            try:
                found, more = list_images(folder)
            except ImageError as error:
                failures.add(folder, error, source.below / folder.relative_to(path))
                continue
            images += [Source(image, source.below / folder.relative_to(path)) for image in found]
            others += more
            deeper += [one for one in reversed(subfolders(folder)) if os.path.realpath(one) not in ours]
    if not images and failures.count == failed:
        searched = "or those in it" if request.recursive else "(--recursive searches subfolders, too)"
        raise ImageError(f"there is no image in the folder {path} {searched}")
    return images, others


def plan(request: Request, sources: Sequence[Source], say: Callable[[str], None] = lambda text: None) -> list[Job]:
    """The jobs of this process, with every output checked against the others, the inputs and what exists.

    Of several processes each takes every so many-th, which the others cannot; what they have made meanwhile may exist.
    """
    several = len(sources) > 1 or len(request.inputs) > 1 or request.listed is not None
    several = several or (request.inputs[0] != STREAM and os.path.isdir(request.inputs[0]))
    output = named(request.output)
    if STREAM in (output, *request.inputs):
        if request.world > 1:
            raise InputError("upscale: one image through standard input or output is no work for several processes")
        return [_of_streams(request, several)]
    into_folder = several or os.path.isdir(output) or request.output.endswith(("/", os.sep))
    if several and not os.path.isdir(output) and output.suffix.lower() in FORMATS:
        raise InputError(f"several images need a folder as output, but {output} is the name of an image file")
    if not into_folder and not output.suffix and not os.path.lexists(output):
        raise InputError(f"the output {output} is neither an image file by its name nor a folder; a folder ends in /")
    if not into_folder:
        _refuse_other_format(request, output)
    masks = Path(request.save_mask) if request.save_mask else None
    mask_each = masks is not None and (several or os.path.isdir(masks))
    jobs = []
    for source in sources:
        stem, suffix = os.path.splitext(source.path.name)
        extension = result_suffix(suffix) if request.format is None else EXTENSION[request.format]
        target = output / source.below / (stem + extension) if into_folder else output
        mask = masks / source.below / f"{stem}-mask.png" if masks and mask_each else masks
        jobs.append(Job(source.path, target, mask, source.below))
    _check_quality(request, jobs)
    _check(jobs, request, say)
    return jobs[request.rank :: request.world]


def _check_quality(request: Request, jobs: Sequence[Job]) -> None:
    """InputError where a quality is asked for and no result has one, as far as their names tell."""
    if request.quality is None:
        return
    targets = [job.target for job in jobs if job.target != STREAM or request.format]  # others are not known yet
    kinds = {request.kind(path, None) for path in targets if path == STREAM or path.suffix.lower() in FORMATS}
    if kinds and not kinds & LOSSY:
        which = " and ".join(sorted(kinds))
        option = "--target-size" if isinstance(request.quality, AtMost) else "--quality"
        raise InputError(
            f"upscale: {option} has no meaning for {which}, without loss; leave it out or choose another --format"
        )


def _refuse_other_format(request: Request, output: Path) -> None:
    if request.format and FORMATS.get(output.suffix.lower()) != FORMATS[EXTENSION[request.format]]:
        raise InputError(f"--format {request.format} contradicts the name of the output, {output}; leave one out")


def named(text: str) -> Path:
    """The path that an argument means: STREAM is ``-`` alone, not the file of that name (``./-``)."""
    path = Path(text)
    return path.absolute() if path == STREAM and text != str(STREAM) else path


def _of_streams(request: Request, several: bool) -> Job:
    """The job that reads standard input or writes standard output. InputError where there is more than one image."""
    output, mask = named(request.output), None if request.save_mask is None else named(request.save_mask)
    if several:
        which = "standard output holds one image" if output == STREAM else "standard input is one image"
        raise InputError(f"upscale: {which}, so - stands for it only where one image is upscaled")
    if output == STREAM and request.skip_existing:
        raise InputError("upscale: --skip-existing has no meaning for standard output; leave it out")
    source = request.inputs[0]
    if source == STREAM:
        for path, option in ((output, "-o"), (mask, "--save-mask")):
            if path is not None and path != STREAM and (os.path.isdir(path) or not path.suffix):
                raise InputError(f"upscale: standard input has no name, so {option} {path} must be that of a file")
    elif mask is not None and os.path.isdir(mask):
        mask = mask / f"{source.stem}-mask.png"
    if output != STREAM:
        _refuse_other_format(request, output)
    job = Job(source, output, mask)
    _check_quality(request, [job])
    _check([job], request, lambda text: None)
    return job


def _check(jobs: list[Job], request: Request, say: Callable[[str], None]) -> None:
    """Refuse what would lose a file. Each file is asked for once: of 20,000 jobs no pairs are compared.

    What only one of several jobs is wrong with, such as a name too long, is left for its own turn.
    """
    if len(jobs) == 1 and request.rank == 0:
        for path in jobs[0].outputs:
            check_output(path, request.overwrite or request.skip_existing, inputs=[jobs[0].source])
    known: frozenset[Identity] | None = None  # the inputs
    owners: dict[tuple[str, str], Path] = {}
    folders: dict[str, tuple[str, bool]] = {}  # what they are really called, and whether they are there
    existing: list[Path] = []
    for number, job in enumerate(jobs):
        if number % _TOLD == 0:
            say(f"looking for {number:,} of {len(jobs):,} results")
        for path in job.outputs:
            folder, name = os.path.split(path)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder), os.path.isdir(folder)
            real, there = folders[folder]
            led, found = _what_is_at(path) if there else (None, None)
            key = led or (real, name)
            if key in owners:
                _refuse_pair(owners[key], job.source, path)
            owners[key] = job.source
            if found is None:
                continue
            if known is None:
                say(f"looking at {len(jobs):,} images")
                known = identities(job.source for job in jobs)
            if (found.st_dev, found.st_ino) in known:
                raise ImageError(f"cannot write {path}: it is an input itself; choose another name or folder")
            if stat.S_ISREG(found.st_mode) and number % request.world == request.rank:
                existing.append(path)
    if existing and not request.overwrite and not request.skip_existing:
        more = f", and so do {len(existing) - 1:,} others" if len(existing) > 1 else ""
        remedy = "--skip-existing goes on with those that are missing, --overwrite replaces them"
        raise ImageError(f"cannot write {existing[0]}: it exists already{more}; {remedy}")


def _what_is_at(path: Path) -> tuple[tuple[str, str] | None, os.stat_result | None]:
    """(folder and name of what a link leads to, None where it is no link; the file there, None where there is none)."""
    led = None
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            folder, name = os.path.split(os.path.realpath(path))
            led = folder, name
            found = os.stat(path)
    except (OSError, ValueError):
        return led, None
    return led, found


def _refuse_pair(one: Path, other: Path, path: Path) -> None:
    if one == other:
        raise InputError(f"the result and the mask of {one} would both be written to {path}")
    remedy = "rename one or upscale them into different folders"
    raise InputError(f"{one} and {other} would both be written to {path}; {remedy}")


def refuse_names_that_fold(jobs: Sequence[Job]) -> None:
    """InputError where the names of two outputs differ, but not for the disk: by case, say. Their folders exist."""
    owners: dict[tuple[str, str], tuple[str, Path]] = {}
    for job in jobs:
        for path in job.outputs:
            folder, name = os.path.split(path)
            folded = name.casefold() if name.isascii() else unicodedata.normalize("NFKC", name).casefold()
            known, source = owners.setdefault((folder, folded), (name, job.source))
            if known != name and are_one_name(path.parent, known, name):
                _refuse_pair(source, job.source, path)


def without_results(jobs: Sequence[Job]) -> Iterator[Job]:
    """The jobs whose result is not there yet. A file of 0 bytes, which no run of ours leaves, is none."""
    return (job for job in jobs if not has_result(job))


def unfinished(
    jobs: Sequence[Job], request: Request, failures: Failures, done: Sequence[Path]
) -> Iterator[tuple[Path, Path]]:
    """Those that neither failed nor are ``done`` by their results, as entries of a list."""
    ended = {path for path, _ in failures.entries}
    results = set(done)
    for job in jobs:
        if job.source not in ended and job.target not in results and not (request.skip_existing and has_result(job)):
            yield job.source, job.behind


def has_result(job: Job) -> bool:
    try:
        found = os.stat(job.target)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0
