"""A published network made mask-guided: what ``mga convert`` does once its words are read."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from mga_kernels.checkpoints import load_checkpoint, save_model
from mga_kernels.errors import InputError
from mga_kernels.networks import MaskGuidedNetwork, SRNetwork, WholeNetwork
from mga_kernels.system.files import writable_folder

from ..console.process import Stopped
from ..evaluation.testsets import only_scale
from ..files.claim import held_folder
from ..files.records import Record
from ..settings.values import parse_split
from ..training.packs import Pair
from . import distilling
from .black_box import with_black_box
from .curve import LARGEST
from .distilling import Distilling
from .extended import extended, fits_the_paper
from .fitting import Fitting
from .material import Material
from .pictures import middle, read_pairs
from .second import named, with_second
from .settings import Training
from .split_curve import SplitCurve
from .teacher import can_lighten, check_convertible, check_refinable, check_split, halves, whole_only

MOST_ADDED = 64  # blocks
CELL = 8  # LR pixels a side, of networks that are cut or extended


@dataclass(frozen=True)
class Request:
    """What is asked for: ``split`` ("8+8"), ``extend`` (a number of blocks, or another network), ``regions``,
    ``black_box``, or none of them: a usual split of networks that can be, and regions of the others.

    ``upsampler``: "light", "copied" or None, what fits. ``hr``: HR images of ``images``, which tell the scale where the
    file does not. ``input_range`` and ``model_scale``: what the file does not tell. ``base``: of ``black_box``, a
    shipped model or a file that makes the coarse picture.
    """

    checkpoint: Path
    output: Path
    images: Path
    minutes: float
    patch_size: int | None  # None: the usual one
    training: Training
    split: str | None = None
    extend: str | None = None
    upsampler: str | None = None
    hr: Path | None = None
    input_range: str | None = None
    model_scale: int | None = None
    regions: bool = False
    black_box: bool = False
    base: str | None = None


def convert(asked: Request) -> bool:
    """Train and write the result; whether Ctrl-C ended it early. The same request goes on where it was."""
    _check_paths(asked)
    if asked.black_box:
        return _black_box(asked)
    if asked.base is not None:
        raise InputError("convert: --base is for --black-box; the other ways make a Base-Net of their own")
    if asked.extend is not None:
        if (second := named(asked.extend)) is not None:
            return _second(asked, second)
        _check_blocks(asked.extend)
    training, extend = asked.training, asked.extend is not None
    expected = None if extend else only_scale(asked.hr, asked.images)
    loaded = load_checkpoint(
        asked.checkpoint, input_range=asked.input_range, scale=asked.model_scale, expected_scale=expected
    )
    if asked.regions or (asked.split is None and not extend and whole_only(loaded)):
        return _regions(asked, loaded)
    teacher = check_convertible(loaded, str(asked.checkpoint))
    split, upsampler = _split(asked, teacher), _upsampler(asked, teacher)
    train, held_out = read_pairs(asked.images, teacher.config.scale, training.crop, extend)
    if extend and fits_the_paper(teacher, split[1]):
        network = extended(teacher, split[1], asked.patch_size or CELL, train[0], training.seed)
    else:
        network = halves(teacher, split, asked.patch_size or CELL, light=upsampler == "light", seed=training.seed)
    made_by = {"split": list(split), "upsampler": upsampler, "patch size": asked.patch_size or CELL}
    fitting = Fitting(None if extend else teacher, network, _material(asked, teacher, train, held_out, made_by))
    blocks = f"{split[0]}+{split[1]} blocks"
    print(f"{teacher.config.network} x{teacher.config.scale}, {blocks}, {asked.minutes:g} minutes", flush=True)
    stopped = _finished(fitting, fitting.folder)
    curve = None
    if not extend:
        curve = SplitCurve(network, teacher, [middle(lr, LARGEST) for _, lr in held_out or train[0][:1]])
        print(curve.report())
    _save(asked, network, fitting, curve.facts() if curve is not None else {})
    print(f"written: {asked.output}")
    if curve is not None and not curve.pays:
        print("note: this split does not pay for this network here; stay with the original", file=sys.stderr)
    if extend and fitting.gain is not None and fitting.gain <= 0:
        print(
            "note: on the held-out images what was added does not make the picture better; stay with the original, or "
            "give more images and minutes",
            file=sys.stderr,
        )
    return stopped


def _regions(asked: Request, loaded: SRNetwork) -> bool:
    """By regions: see ``distilling``."""
    teacher = check_refinable(loaded, str(asked.checkpoint))
    if asked.upsampler is not None:
        raise InputError("convert: --upsampler is for --split; regions are refined of what a network of its own makes")
    patch_size = asked.patch_size or distilling.CELL
    train, held_out = read_pairs(asked.images, teacher.config.scale, asked.training.crop, False)
    material = _material(asked, teacher, train, held_out, {"way": "regions", "patch size": patch_size})
    print(f"{teacher.config.network} x{teacher.config.scale}, regions, {asked.minutes:g} minutes", flush=True)
    work = Distilling(teacher, material, patch_size)
    stopped = _finished(work, material.folder)
    print(work.report())
    facts = material.facts() | work.facts()
    save_model(asked.output, work.network, *_notes(asked, facts, work.planned(), work.finished))
    print(f"written: {asked.output}")
    _note_unless(work.pays)
    return stopped


def _black_box(asked: Request) -> bool:
    """See ``black_box``; nothing is trained, so there is nothing to go on with."""
    for_others = {"--input-range": asked.input_range, "--model-scale": asked.model_scale}
    _trains_nothing(asked, "--black-box, which trains nothing and takes what spandrel loads", for_others)

    def notes(facts: Record) -> tuple[dict[str, str], Record]:
        return _notes(asked, _untrained(asked) | facts, {}, True)

    pays = with_black_box(asked, notes)
    print(f"written: {asked.output}")
    _note_unless(pays)
    return False


def _second(asked: Request, second: Path) -> bool:
    """See ``second``; nothing is trained here either."""
    _trains_nothing(asked, "--extend by another network, which trains nothing", {"--model-scale": asked.model_scale})

    def notes(facts: Record) -> tuple[dict[str, str], Record]:
        licence, made = _notes(asked, _untrained(asked) | facts, {}, True)
        also = f"those of {asked.checkpoint.name} and {second.name}, unchanged; the licences of both hold"
        return licence | {"weights": also}, made | {"second's": _digest(second)}

    pays = with_second(asked, second, notes)
    print(f"written: {asked.output}")
    if not pays:
        print("note: the mean of these two is no better here than one of them; stay with that", file=sys.stderr)
    return False


def _trains_nothing(asked: Request, way: str, given: dict[str, str | int | None]) -> None:
    """InputError for what is said of a training, or of ``given``, where there is no place for it."""
    given = {"--upsampler": asked.upsampler, **given}
    found = [name for name, value in given.items() if value is not None] + [*asked.training.changed()]
    if found:
        raise InputError(f"convert: {found[0]} is not for {way}")


def _untrained(asked: Request) -> Record:
    return {"original": _digest(asked.checkpoint), "minutes": asked.minutes}


def _note_unless(pays: bool) -> None:
    if not pays:
        print("note: refining regions does not pay for this network here; stay with the original", file=sys.stderr)


def _finished(work: Fitting | Distilling, folder: Path) -> bool:
    """Whether Ctrl-C stopped it: then what there is is made the best of, unless it is stopped again.

    Another signal leaves no time for that, as when the machine shuts down.
    """
    again = f"the same command goes on from {folder}"
    remedy = "wait until it has ended, or choose another -o"
    with held_folder(folder, f"convert: another run is at work in {folder}; {remedy}"):
        try:
            work.run()
            return False
        except Stopped as signal:
            signal.args = (again,)
            raise
        except KeyboardInterrupt:
            print(f"stopped: {work.early}; {again}", file=sys.stderr, flush=True)
            work.finish_early()
            return True


def _material(
    asked: Request, teacher: WholeNetwork, train: list[list[Pair]], held_out: list[Pair], made_by: Record
) -> Material:
    folder, original = asked.output.with_suffix(".state"), json.loads(teacher.config.to_json())
    made_by = {"original": _digest(asked.checkpoint), **made_by}
    return Material(train, held_out, folder, asked.minutes, asked.training, made_by, original)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _check_paths(asked: Request) -> None:
    if asked.output.suffix != ".safetensors":
        raise InputError(f"convert: the result is a .safetensors file; -o {asked.output} does not end so")
    if asked.output.exists() and asked.checkpoint.exists() and asked.output.samefile(asked.checkpoint):
        raise InputError(f"convert: -o {asked.output} is the original; choose another file")
    if not asked.images.is_dir():
        raise InputError(f"convert: there is no folder {asked.images}; correct --images")
    writable_folder(asked.output.parent)


def _check_blocks(added: str) -> None:
    if not (added.isascii() and added.isdecimal() and 1 <= int(added) <= MOST_ADDED):
        raise InputError(
            f"convert: --extend takes a number of blocks, 1 to {MOST_ADDED}, or another network, a file or a name "
            f"that `mga models` lists; got {added!r}"
        )


def _split(asked: Request, teacher: WholeNetwork) -> tuple[int, int]:
    blocks = teacher.config.blocks
    if asked.extend is not None:
        return blocks, int(asked.extend)
    split = parse_split(asked.split) if asked.split else (max(1, blocks * 3 // 4), blocks - max(1, blocks * 3 // 4))
    check_split(teacher, split)
    return split


def _upsampler(asked: Request, teacher: WholeNetwork) -> str:
    """The Base-Net's."""
    if asked.upsampler is not None and asked.extend is not None:
        raise InputError("convert: --upsampler is for --split; an extended network keeps its own")
    can = asked.extend is None and can_lighten(teacher)
    if asked.upsampler == "light" and not can:
        raise InputError(
            f"convert: the upsampler of {teacher.config.network} is one convolution already; leave out --upsampler"
        )
    return asked.upsampler or ("light" if can else "copied")


def _save(asked: Request, network: MaskGuidedNetwork, fitting: Fitting, measured: Record) -> None:
    more: Record = {"way": "split" if fitting.teacher is not None else "extend", "results": fitting.results}
    more |= measured
    if fitting.mask_unit:
        more["mask_unit"] = fitting.mask_unit
    save_model(
        asked.output, network, *_notes(asked, fitting.material.facts() | more, fitting.planned(), fitting.finished)
    )


def _notes(asked: Request, facts: Record, iterations: dict[str, int], finished: bool) -> tuple[dict[str, str], Record]:
    """What a file says of the licence of its weights, and of how they were made."""
    notice = f"those of {asked.checkpoint.name}, from which they were made; its licence holds"
    return {"weights": notice}, {
        "converted": asked.checkpoint.name,
        **facts,
        "iterations": iterations,
        "finished": time.strftime("%Y-%m-%d", time.gmtime()) if finished else "stopped early",
        "torch": torch.__version__,
    }
