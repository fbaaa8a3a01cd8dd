"""Finding out which published network a state dict belongs to, and in which convention it works."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, CheckpointNote, InputError
from ..networks.colour import COLOURS, INPUT_RANGES, ONLY
from ..networks.whole import SCALES, WholeConfig, WholeNetwork
from ..notices import warn
from ..system.texts import shown
from .building import without_memory
from .foreign import SPANDREL, foreign_network, prefixes
from .inside import MOST_NETWORKS
from .probe import is_studio_luma, right_colours, right_reading, right_way
from .scales import Hint
from .spelling import Reading, Spelling, State, check_rgb, spellings_that

SHOWN = 4  # names of an unknown file


def find_spelling(state: State) -> Spelling | None:
    """The spelling whose marks are all there; of several, the one with most, and of those one of the package."""
    return max(spellings_that(lambda spelling: spelling.fits(state)), key=lambda fit: len(fit.marks), default=None)


def places_of_networks(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The beginnings of names behind which a network that is known begins (``inside.find_networks``)."""
    found: dict[str, tuple[str, ...]] = {}

    def begins(spelling: Spelling) -> bool:
        starts = list(prefixes(names, spelling.marks))
        if len(starts) <= MOST_NETWORKS:  # more are refused, whatever else they have
            starts = [start for start in starts if spelling.fits(names, start)]
        places: dict[str, tuple[str, ...]] = dict.fromkeys(starts, ())
        found.update(places)
        return bool(places)

    spellings_that(begins)
    return found


def recognise(
    state: State,
    name: str,
    colour: str | None = None,
    input_range: str | None = None,
    scale: int | None = None,
    hints: Sequence[Hint] = (),
) -> WholeNetwork:
    """The whole network of a state dict, fp32 on the CPU, ready to run.

    ``colour`` ("rgb", "ycbcr", "y"), ``input_range`` (see ``networks.colour``) and ``scale`` decide where the
    tensors do not tell, and ``input_range`` also against what a network was published with. The first of ``hints``
    that is possible decides the scale where neither tensors nor a trial do. CheckpointError, beginning with ``name``,
    for a state dict of another network, one that does not fit, and one that leaves more than one way.
    """
    for what, given, allowed in (("colour", colour, COLOURS), ("input_range", input_range, INPUT_RANGES)):
        if given not in (None, *allowed):
            raise InputError(f"{name}: {what} {given!r} does not exist; choose one of {', '.join(allowed)}")
    if scale not in (None, *SCALES):
        raise InputError(f"{name}: scale {scale!r} is not supported; choose one of {SCALES}")
    spelling = find_spelling(state)
    if spelling is None:
        known = foreign_network(state)
        remedy = "" if known else SPANDREL
        known = known or f"of no network that is known: it has {describe(state)}"
        raise CheckpointError(f"{name} is {known}; {supported()}{remedy}")
    try:
        reading = _tried(spelling.read(state), input_range, name, spelling.name)
        reading = _narrowed(reading, colour, input_range, scale)
        if len(reading.constants) > 1:
            reading = _with_constants(reading, f"{name} is {spelling.name} ({reading.spelling})")
        networks = [build(reading, s) for s in reading.scales]
    except CheckpointError as error:
        raise CheckpointError(f"{name} looks like {spelling.name}, but {error}") from None
    what = f"{name} is {spelling.name} ({reading.spelling})"
    return _decide(networks, reading, what, hints).eval().requires_grad_(False)


def describe(state: State) -> str:
    """What a file looks like, in words."""
    first = ", ".join(map(shown, list(state)[:SHOWN])) + (", ..." if len(state) > SHOWN else "")
    kernels = [tensor for tensor in state.values() if tensor.ndim == 4]
    ends = f", from {kernels[0].shape[1]} to {kernels[-1].shape[0]} channels" if kernels else ", none a convolution"
    return f"{len(state)} tensors ({first}){ends}"


def supported() -> str:
    spellings = sorted({spelling.name for spelling in spellings_that(lambda spelling: True)})
    return (
        f"supported are {', '.join(spellings)} and mask-guided networks, as they were published or in BasicSR's names"
    )


def _tried(reading: Reading, input_range: str | None, name: str, network: str) -> Reading:
    """The reading, of those in the range that is asked for, which a trial shows to be right; else the usual one."""
    ways = [way for way in (reading, *reading.others) if input_range is None or way.ranges == (input_range,)]
    usual = (ways or [reading])[0]
    if len(ways) < 2:
        return usual
    taken = ways[right_reading(build(way, way.scales[0]).eval() for way in ways)]
    if taken is usual:
        return usual
    facts = [f"{key} {value}" for key, value in taken.settings.items() if usual.settings.get(key) != value]
    if taken.ranges != usual.ranges:
        facts.append(f"values in {taken.ranges[0]}; input_range= (--input-range) decides otherwise")
    warn(
        f"{name} is {network} ({reading.spelling}), whose tensors do not tell all that it does: taken is what a trial "
        f"shows, {', '.join(facts)}",
        CheckpointNote,
    )
    return taken


def _narrowed(reading: Reading, colour: str | None, input_range: str | None, scale: int | None) -> Reading:
    """What the caller says replaces what is open; CheckpointError where that contradicts the tensors."""
    if colour is not None:
        if ("y" in reading.colours) != (colour == "y"):
            planes = 1 if "y" in reading.colours else 3
            raise CheckpointError(f"it has {planes} colour plane(s), which is not colour={colour!r}")
        reading = dataclasses.replace(reading, colours=(colour,))
    if input_range is not None and reading.constants:
        asked = tuple(constants for constants in reading.constants if constants.input_range == input_range)
        if not asked:
            known = sorted({constants.input_range for constants in reading.constants})
            raise CheckpointError(f'it works on {_either(known)}, not on input_range="{input_range}"')
        reading = dataclasses.replace(reading, constants=asked)
    elif input_range is not None:
        if ONLY.get(input_range, reading.colours[0]) not in reading.colours:
            raise CheckpointError(f'input_range="{input_range}" is for colour="{ONLY[input_range]}"')
        reading = dataclasses.replace(reading, ranges=(input_range,))
    if scale is not None:
        if scale not in reading.scales:
            raise CheckpointError(f"it is for x{' or x'.join(map(str, reading.scales))}, not for scale={scale}")
        reading = dataclasses.replace(reading, scales=(scale,))
    if len(reading.constants) == 1:
        reading = dataclasses.replace(reading, settings={**reading.settings, **reading.constants[0].settings})
    return reading


def _with_constants(reading: Reading, what: str) -> Reading:
    """With the constants that a trial tells; the usual ones where it does not, and a CheckpointNote says so."""
    settings = [{**reading.settings, **constants.settings} for constants in reading.constants]
    networks = [
        build(dataclasses.replace(reading, settings=candidate), reading.scales[0]).eval() for candidate in settings
    ]
    way, levels = right_colours(networks)
    if way is None:
        usual = ", ".join(f"{name} {value}" for name, value in reading.constants[0].settings.items())
        warn(
            f"{what}, which does not tell what is done to the image before it, and a trial does not, either (colours "
            f"are off by {min(levels):.3g} levels at best): taken are the usual constants, {usual}; "
            "input_range= (--input-range) decides otherwise",
            CheckpointNote,
        )
    return dataclasses.replace(reading, settings=settings[way or 0])


def build(reading: Reading, scale: int) -> WholeNetwork:
    """The network with the weights of the reading; CheckpointError where they are not those that it has."""
    config = WholeConfig(
        reading.network, scale, reading.blocks, reading.settings, reading.colours[0], reading.ranges[0]
    )
    network = fitted(lambda: WholeNetwork(config), {f"body.{key}": tensor for key, tensor in reading.state.items()})
    assert isinstance(network, WholeNetwork)
    return network


def fitted(make: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> nn.Module:
    """A module with these weights in fp32; CheckpointError where names or shapes are not its own."""
    network = without_memory(make, len(state))
    wanted = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    unlike = [key for key in (*wanted, *found) if wanted.get(key) != found.get(key)]
    for axis, verb in ((1, "takes"), (0, "makes")):
        for key in unlike:
            _check_planes(wanted.get(key, ()), found.get(key, ()), axis, verb)
    for key in unlike:
        raise CheckpointError(
            f"tensor {shown(key.removeprefix('body.'))} is {found.get(key, 'missing')} in the file and "
            f"{wanted.get(key, 'unknown')} in the network"
        )
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"tensor {shown(key.removeprefix('body.'))} holds {tensor.dtype}, no weights")
    # Copies, because sums depend on the address of a tensor in the last bit, and on the order of what it holds.
    plain = {
        key: tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format) for key, tensor in state.items()
    }
    network.load_state_dict(plain, assign=True)
    return network


def _check_planes(wanted: tuple[int, ...], found: tuple[int, ...], axis: int, verb: str) -> None:
    """CheckpointError where these shapes of a kernel differ by the planes of colour alone, which are along ``axis``."""
    if len(wanted) == len(found) == 4 and wanted[axis] == 3:
        planes = found[axis]
        if planes in (1, 2, 4) and found == (*wanted[:axis], planes, *wanted[axis + 1 :]):
            check_rgb(planes, verb)


def _decide(networks: list[WholeNetwork], reading: Reading, what: str, hints: Sequence[Hint]) -> WholeNetwork:
    """The network, at the scale and in the convention that are left; CheckpointError where there are several."""
    if len(reading.colours) > 1:
        raise CheckpointError(f"{what}, whose colours may be {_either(reading.colours)}; say which: colour= (--colour)")
    luma_range = [given for given in reading.ranges if given == "16..235"]
    ranges = tuple(given for given in reading.ranges if given != "16..235" or len(reading.ranges) == 1)
    if len(networks) == 1 and len(ranges) == 1:
        scale, input_range = networks[0].config.scale, ranges[0]
    else:
        way, levels = right_way(networks, ranges)
        if way is None and len(networks) > 1 and (chosen := decide_scale(reading.scales, what, hints)) is not None:
            if len(ranges) == 1:
                way = chosen, ranges[0]
            else:
                way, levels = right_way([n for n in networks if n.config.scale == chosen], ranges)
        if way is None:
            raise CheckpointError(f"{what}, {_undecided(levels)}")
        scale, input_range = way
    network = next(network for network in networks if network.config.scale == scale)
    if luma_range and input_range == "0..1":
        if not is_studio_luma(network):
            raise CheckpointError(
                f"{what}, x{scale}, of luma in 16..235 or in 0..1; say which: input_range= (--input-range)"
            )
        input_range = "16..235"
    network.config = dataclasses.replace(network.config, input_range=input_range)
    return network


def decide_scale(scales: Sequence[int], what: str, hints: Sequence[Hint]) -> int | None:
    """The first hint at a scale, of those that are possible; a CheckpointNote tells what was concluded from a name.

    CheckpointError where the caller expects a scale that is not possible.
    """
    for hint in hints:
        if not hint.by_name and hint.scale not in scales:
            raise CheckpointError(f"{what}, for x{_either(scales, ' or x')}, and {hint}")
    possible = [hint for hint in hints if hint.scale in scales]
    if not possible:
        return None
    first, *others = possible
    contradicting = next((hint for hint in others if hint.scale != first.scale), None)
    if first.by_name or contradicting is not None:
        but = "" if contradicting is None else f", although {contradicting}"
        warn(
            f"{what}, for x{_either(scales, ' or x')}, which its tensors do not tell: taken for x{first.scale}, "
            f"because {first}{but}; scale= (--model-scale) decides otherwise",
            CheckpointNote,
        )
    return first.scale


def _undecided(levels: dict[tuple[int, str], float]) -> str:
    scales, ranges = sorted({scale for scale, _ in levels}), sorted({given for _, given in levels})
    options, which = [], []
    if len(scales) > 1:
        which.append(_either([f"x{scale}" for scale in scales]))
        options.append("scale= (--model-scale)")
    if len(ranges) > 1:
        which.append(f"made for values in {_either(ranges)}")
        options.append("input_range= (--input-range)")
    return (
        f"{' and '.join(which)}, which its tensors do not tell and a trial does not decide (differences from bicubic: "
        f"{', '.join(f'x{s} in {r}: {value:.3g} levels' for (s, r), value in levels.items())}); "
        f"say which: {' and '.join(options)}"
    )


def _either(names, between: str = " or ") -> str:
    return between.join(map(str, names))
