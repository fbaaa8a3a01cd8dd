"""The published files of EDSR, baseline and large, as its authors and as BasicSR name their tensors."""

from __future__ import annotations

from dataclasses import replace

from ...checkpoints.mean_shift import has_shift, mean_shift, with_other_means, without_shift
from ...checkpoints.spelling import Published, Reading, Spelling, State, count, renamed, shape, stepwise_scale
from .network import MEAN, WIDE, WIDE_RESIDUAL

MOST_STEPS = 4  # to x16


def _edsr(state: State, spelling: str, mean: tuple[float, ...], ranges: tuple[str, ...]) -> Reading:
    """Of tensors with our names. What blocks are multiplied by no tensor tells."""
    scale, channels = stepwise_scale(state), shape(state, "conv_first.weight")[0]
    settings = {"channels": channels, "mean": mean}
    settings |= {"residual": WIDE_RESIDUAL} if channels >= WIDE else {}
    return Reading("edsr", spelling, dict(state), count(state, r"body\.(\d+)\."), settings, (scale,), ranges=ranges)


def _with_others(reading: Reading) -> Reading:
    """With what it may be as well where its blocks are multiplied as those of a network of the other width are."""
    residual = 1.0 if "residual" in reading.settings else WIDE_RESIDUAL
    ways = (reading, *reading.others)
    ways += tuple(replace(way, settings={**way.settings, "residual": residual}) for way in ways)
    return replace(reading, others=tuple(replace(way, others=()) for way in ways[1:]))


def _original(state: State) -> Reading:
    mean, ranges = mean_shift(state)
    blocks = count(state, r"body\.(\d+)\.body\.")
    rules = {
        r"head\.0\.": "conv_first.",
        r"body\.(\d+)\.body\.0\.": r"body.\1.conv1.",
        r"body\.(\d+)\.body\.2\.": r"body.\1.conv2.",
        rf"body\.{blocks}\.": "conv_after_body.",
        r"tail\.0\.": "upsampler.",
        r"tail\.1\.": "conv_last.",
    }
    reading = _edsr(renamed(without_shift(state), rules), "original", mean, ranges)
    return _with_others(with_other_means(reading, MEAN, has_shift(state)))


def _basicsr(state: State) -> Reading:
    """The mean colour is no tensor; that of DIV2K is what the code has, for the range that each framework has."""
    if any(".upsample_conv." in name for name in state):
        rules = {rf"upsample\.{step}\.upsample_conv\.": f"upsampler.{2 * step}." for step in range(MOST_STEPS)}
        reading = _edsr(renamed(state, rules), "MMagic", tuple(value / 255 for value in MEAN), ("0..1",))
    else:
        reading = _edsr(renamed(state, {r"upsample\.": "upsampler."}), "BasicSR", MEAN, ("0..255",))
    return _with_others(with_other_means(reading, MEAN))


PUBLISHED = Published(
    (
        Spelling(
            "EDSR",
            ("head.0.weight", "body.0.body.0.weight", "body.0.body.2.weight", "tail.1.weight"),
            _original,
        ),
        Spelling("EDSR", ("conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight"), _basicsr),
    )
)
