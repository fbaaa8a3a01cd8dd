"""The page itself: one HTML file that needs nothing else and reaches for nothing."""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from mga_kernels.engine.explanation import Explanation

from ..files.records import Record
from .chart import Point, curve
from .measure import NEAR_HR, NEAR_ORIGINAL, RUNS, Comparison, Psnr, Run, Sample
from .pictures import Level, data_uri, most_different, reduced, veil

NOISE = 0.05  # of the seconds, below which nothing is called faster


@dataclass(frozen=True)
class Subject:
    """What is compared, as the page names it. ``facts``: (name, value) for the head; ``model`` as in the command."""

    title: str
    model: str
    facts: Sequence[tuple[str, str]]


def render(subject: Subject, comparison: Comparison, explained: Sequence[Explanation], level: Level) -> str:
    """The page; ``explained`` is what -M does to every sample at the suggested K. All text is escaped here."""
    style, script = (_asset(f"page.{ending}") for ending in ("css", "js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    chosen = comparison.suggested
    quality = f"PSNR of luma against {'HR' if comparison.has_hr else 'the original'}, dB"
    command = f"mga upscale PHOTO -o LARGE.png --model {shlex.quote(subject.model)} --k {chosen.k}"
    return Template(_asset("page.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        title=escape(subject.title),
        verdict=escape(verdict(comparison)),
        facts="".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in subject.facts),
        chart=curve(_points(comparison), quality),
        caption=escape(
            f"Each dot is one K, the ringed one is suggested, the diamond is the original. "
            f"Means of {_images(len(comparison.samples))}."
            + (
                ""
                if comparison.has_hr
                else " The original, equal to itself, is drawn on the upper edge. "
                "Without HR images this tells how alike the two are, not which of them is better."
            )
        ),
        rule=escape(_rule(comparison)),
        command=escape(command),
        share=escape(_share(comparison)),
        table=_table(comparison),
        notes=escape(_notes(comparison)),
        shown=escape(_shown(comparison)),
        pictures="\n".join(
            _pictures(number, *one, comparison, level)
            for number, one in enumerate(zip(comparison.samples, comparison.pictures, explained, strict=True))
        ),
        footer="Made by <code>mga report</code>. This file holds all it shows and asks nothing of any network.",
    )


def verdict(comparison: Comparison) -> str:
    """In two sentences: is the suggested K faster, and what does it cost."""
    chosen, original = comparison.suggested, comparison.original
    ratio = chosen.seconds / original.seconds
    if ratio < 1 - NOISE:
        time = f"takes {100 * ratio:.0f} % of the original's time"
    elif ratio <= 1 + NOISE:
        time = "takes about as long as the original, so it does not pay here"
    else:
        time = f"takes {ratio:.2f} times as long as the original, so it does not pay here"
    text = f"With the suggested K = {chosen.k:,} it {time} ({chosen.seconds:.3f} s instead of {original.seconds:.3f} s)"
    text += f" at {100 * chosen.gmacs / original.gmacs:.0f} % of its multiply-accumulates."
    if chosen.against_hr is not None and original.against_hr is not None:
        change = chosen.against_hr.luma - original.against_hr.luma
        change = 0.0 if math.isnan(change) else change  # both equal to HR
        return f"{text} Against HR its PSNR of luma is {change:+.3f} dB from that of the original."
    if math.isinf(chosen.against_original.luma):
        return f"{text} The pictures are equal."
    return f"{text} Its pictures agree with the original's to {chosen.against_original.luma:.2f} dB of luma."


def _rule(comparison: Comparison) -> str:
    near, what = (NEAR_HR, "HR") if comparison.has_hr else (NEAR_ORIGINAL, "the original")
    return (
        f"Suggested is the smallest measured K whose mean luma PSNR against {what} is within {near:g} dB of the best "
        f"K: {comparison.suggested.k:,}. Use it with"
    )


def _share(comparison: Comparison) -> str:
    cells = sum(comparison.cells) / len(comparison.cells)
    fraction = sum(min(comparison.suggested.k or 0, own) / own for own in comparison.cells) / len(comparison.cells)
    return (
        f"These images have {cells:,.0f} cells on average, of which that refines {100 * fraction:.1f} %; for images of "
        f"other sizes --fraction {fraction:.3g} in place of --k refines as large a share."
    )


def _points(comparison: Comparison) -> list[Point]:
    chosen, original = comparison.suggested, comparison.original
    points = [
        Point(f"K = {run.k:,}", run.seconds, run.quality, "suggested" if run is chosen else "k")
        for run in comparison.runs
    ]
    return [*points, Point("original", original.seconds, original.quality, "original")]


def _table(comparison: Comparison) -> str:
    heads = ["run", "seconds", "GMACs", "luma against original, dB", "RGB against original, dB"]
    heads += ["luma against HR, dB", "RGB against HR, dB"] * comparison.has_hr
    lines = ["<table>", f"<caption>Means of {_images(len(comparison.samples))}</caption>", "<thead><tr>"]
    lines += [f'<th scope="col">{escape(head)}</th>' for head in heads]
    lines += ["</tr></thead>", "<tbody>"]
    for run in (comparison.original, *comparison.runs):
        marked = run is comparison.suggested
        name = "original" if run.k is None else f"K = {run.k:,}{' (suggested)' if marked else ''}"
        cells = [f"{run.seconds:.3f}", f"{run.gmacs:,.2f}", *_dbs(run.against_original if run.k is not None else None)]
        cells += _dbs(run.against_hr) if comparison.has_hr else []
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        kind = ' class="suggested"' if marked else ""
        lines.append(f'<tr{kind}><th scope="row">{escape(name)}</th>{row}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>"])


def _dbs(value: Psnr | None) -> list[str]:
    return ["–", "–"] if value is None else [_db(value.luma), _db(value.rgb)]


def _db(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "equal"


def _notes(comparison: Comparison) -> str:
    slower = ", ".join(f"{ratio:.2f} times as long in {runtime}" for runtime, ratio in comparison.slower)
    others = f" ({slower}, for the first image)" if slower else ""
    ours = "; ".join(dict.fromkeys(run.runtime for run in comparison.runs))
    return (
        "Seconds are from the bytes of an image in memory to the bytes of the result, on this machine. After one run "
        f"to warm up, each K took {RUNS} turns with the original; its seconds are the median over all turns of the "
        "original times the median ratio of its own. The original ran in "
        f"{comparison.original.runtime}, the fastest here{others}; -M in {ours}. GMACs are 10^9 multiply-accumulates "
        "by the paper's convention. PSNR is of the 8-bit pictures without a border as wide as the scale."
    )


def _shown(comparison: Comparison) -> str:
    left = comparison.left_out
    more = f" {_images(left)} more of the folder were left out, evenly by name." if left else ""
    return (
        f"On the left the original, on the right -M with K = {comparison.suggested.k:,}. The crop is where the two "
        f"differ most, pixel for pixel.{more}"
    )


def _pictures(
    number: int, sample: Sample, original: np.ndarray, explained: Explanation, comparison: Comparison, level: Level
) -> str:
    result = np.asarray(explained.image)
    box = most_different(original, result)
    cells = veil(explained.mask, explained.indices, explained.patch_size * explained.scale, result.shape[1::-1])
    pair = [Image.fromarray(image) for image in (original, result)]
    whole = [data_uri(reduced(image, level.side), level.whole) for image in pair]
    crops = [data_uri(image.crop(box), level.crop) for image in pair]
    veils = [data_uri(reduced(cells, level.side, smooth=False), None), data_uri(cells.crop(box), None)]
    size = f"{result.shape[1]}x{result.shape[0]}"
    crop = f"crop of {box[2] - box[0]}x{box[3] - box[1]} pixels at {box[0]}, {box[1]}"
    reduction = f"whole picture, {size}" + (", reduced" if max(result.shape[:2]) > level.side else "")
    refined, chosen = len(explained.indices), comparison.suggested
    name = sample.name
    parts = [
        f"<article><h3>{escape(name)}</h3>",
        f'<p class="facts">{escape(_about(number, chosen, comparison.original))} '
        f"{refined:,} of {explained.mask.size:,} cells refined.</p>",
        '<div class="pair">',
        _slider(f"crop-{number}", crops, veils[1], (box[2] - box[0], box[3] - box[1]), crop, name),
        _slider(f"whole-{number}", whole, veils[0], result.shape[1::-1], reduction, name),
        "</div></article>",
    ]
    return "\n".join(parts)


def _about(number: int, chosen: Run, original: Run) -> str:
    ours, theirs = chosen.figures[number], original.figures[number]
    text = f"{ours.seconds:.3f} s against {theirs.seconds:.3f} s, {ours.gmacs:,.2f} against {theirs.gmacs:,.2f} GMACs. "
    text += "PSNR between the two: " + _pair(ours.original) + ". "
    if ours.hr is not None and theirs.hr is not None:
        text += f"Against HR: {_pair(ours.hr)}; the original {_pair(theirs.hr)}. "
    return text


def _pair(value: Psnr) -> str:
    if math.isinf(value.rgb):
        return "equal"
    return f"luma {_db(value.luma)}, RGB {_db(value.rgb)} dB"


def _slider(
    identity: str,
    images: Sequence[str],
    cells: str,
    size: tuple[int, int],
    what: str,
    name: str,
) -> str:
    width, height = size
    subject = escape(f"{name}, {what}")
    return (
        f'<figure class="compare" id="{identity}"><div class="stack">'
        f'<img class="after" width="{width}" height="{height}" src="{images[1]}" alt="-M: {subject}">'
        f'<img class="before" src="{images[0]}" alt="original: {subject}">'
        f'<img class="veil" hidden src="{cells}" alt="mask: {subject}"><span class="edge"></span></div>'
        '<div class="sides"><span>original</span><span>-M</span></div>'
        f'<label for="slider-{identity}">how much of the original is shown</label>'
        f'<input type="range" min="0" max="100" value="50" id="slider-{identity}">'
        f'<label class="switch"><input type="checkbox" id="mask-{identity}"> show the mask, from blue to yellow, '
        f"strong where cells are refined</label><figcaption>{escape(what)}</figcaption></figure>"
    )


def training_facts(training: Record) -> list[tuple[str, str]]:
    """What the metadata of a model file says about its training: plain values, those of groups by "group: name"."""
    facts = []
    for name, value in sorted(training.items()):
        if name != "settings":
            facts += [(f"training, {key}", text) for key, text in _plain(name, value)]
    return facts


def _plain(name: str, value: Any) -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        if isinstance(value.get("files"), list):
            yield name, _images(len(value["files"]))
            return
        for key, inner in value.items():
            yield from _plain(f"{name} {key}" if name != "results" else key, inner)
    elif isinstance(value, str | int | float):
        yield name, str(value)[:300]


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
