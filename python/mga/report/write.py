"""From two files of weights and a folder of images to the page."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mga_kernels.checkpoints import read_metadata
from mga_kernels.checkpoints.native import find_model, is_native
from mga_kernels.engine.model import MaskGuidedSR
from mga_kernels.errors import CheckpointError, InputError
from mga_kernels.info import collect
from mga_kernels.networks import ModelConfig, RegionConfig, WholeConfig
from mga_kernels.system.files import whole_file, writable_folder

from ..evaluation.testsets import only_scale
from ..files.records import Record
from .measure import compare, gather, machine
from .page import Subject, render, training_facts
from .pictures import LEVELS

LARGEST = 10_000_000  # bytes of the page, beyond which its pictures are made smaller


def write_report(
    model: str | os.PathLike[str],
    original: str | os.PathLike[str],
    images: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    hr: str | os.PathLike[str] | None = None,
    *,
    ks: Sequence[int] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    colour: str | None = None,
    input_range: str | None = None,
    original_scale: int | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Compare ``model``, a mask-guided one by name or file, with ``original``, a published network, and write the page.

    ``images``: folder of LR images; ``hr``: folder of their HR images, or alone, from which LR images are made by
    MATLAB's bicubic. ``ks``: the K to measure, by default from 0 up to all cells. ``colour``, ``input_range`` and
    ``original_scale`` decide what the tensors of the original leave open. ``say`` is told what goes on. The page
    appears whole or not at all. Raises InputError, ImageError and CheckpointError in one sentence each.
    """
    out = check_page(out, overwrite)
    where: Record = {"device": device, "dtype": dtype}
    conventions: Record = {"colour": colour, "input_range": input_range, "scale": original_scale}

    def load_model(**settings: Any) -> MaskGuidedSR:
        return MaskGuidedSR.from_checkpoint(model, **where, **settings)

    def load_original(**settings: Any) -> MaskGuidedSR:
        return MaskGuidedSR.from_checkpoint(original, **conventions, **where, **settings)

    say("loading")
    folders = [None if folder is None else Path(folder) for folder in (images, hr)]
    where["expected_scale"] = only_scale(folders[1], folders[0])
    ours = load_model()
    where["expected_scale"] = ours.scale
    config, published = _configs(model, original, ours, load_original())
    samples, left_out = gather(folders[0], folders[1], config.scale)
    comparison = compare(load_model, load_original, samples, left_out, ks, say)
    say("pictures")
    chosen = load_model(k=comparison.suggested.k)
    explained = [chosen.explain(sample.lr) for sample in samples]
    subject = _subject(model, original, config, published)
    for level in LEVELS:
        page = render(subject, comparison, explained, level).encode(errors="backslashreplace")  # names may be no text
        if len(page) <= LARGEST:
            break
    with whole_file(out) as stream:
        stream.write(page)
    return out


def check_page(out: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """The path of a page that can be written; InputError where it cannot."""
    out = Path(out)
    if out.is_dir():
        raise InputError(f"report: {out} is a folder; name a file, such as {out / 'report.html'}")
    if out.exists() and not overwrite:
        raise InputError(f"report: {out} exists; choose another name or allow overwriting")
    if not out.parent.is_dir():
        raise InputError(f"report: {out} cannot be written, its folder does not exist")
    writable_folder(out.parent)
    return out


def _configs(
    model: str | os.PathLike[str], original: str | os.PathLike[str], ours: MaskGuidedSR, theirs: MaskGuidedSR
) -> tuple[ModelConfig | RegionConfig, WholeConfig]:
    if not isinstance(ours.config, ModelConfig | RegionConfig):
        raise CheckpointError(f"report: {model} is a network without a mask, which has no K; name a mask-guided model")
    if not isinstance(theirs.config, WholeConfig):
        raise CheckpointError(
            f"report: {original} is mask-guided or has classes; name the file of a network as it was published"
        )
    if ours.scale != theirs.scale:
        raise InputError(
            f"report: {model} is for x{ours.scale} and {original} for x{theirs.scale}; compare models of the same scale"
        )
    return ours.config, theirs.config


def _subject(
    model: str | os.PathLike[str],
    original: str | os.PathLike[str],
    config: ModelConfig | RegionConfig,
    published: WholeConfig,
) -> Subject:
    native = is_native(model)
    training = read_metadata(model)["training"] if native else {}
    versions = collect()["versions"]
    cut = "in regions" if isinstance(config, RegionConfig) else f"blocks {'+'.join(map(str, config.split))}"
    facts = [
        ("model", f"{Path(model).name}: {config.network} x{config.scale}, {cut}, p = {config.patch_size}"),
        ("original", f"{Path(original).name}: {published.network} x{published.scale}, {published.blocks} blocks"),
        *training_facts(training),
        ("versions", ", ".join(f"{name} {versions[name]}" for name in ("mga_kernels", "torch", "python"))),
        ("machine", machine()),
        ("date", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")),
    ]
    title = f"{find_model(model).stem} beside {Path(original).name}"
    return Subject(title, os.fspath(model), facts)
