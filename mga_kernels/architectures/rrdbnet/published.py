"""The published files of RRDBNet: four spellings of one network, RGB in 0..1."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from ...checkpoints.spelling import Convolutions, Published, Reading, Spelling, State, check_rgb, count, renamed, shape
from ...errors import CheckpointError
from ...networks.whole import SCALES

UNSHUFFLED = (1, 2, 4)  # sides of the blocks of pixels that become channels
MOST_ENLARGEMENTS = 6  # to x16 from blocks of 4


def _reading(state: State, spelling: str) -> Reading:
    """Of tensors with our names."""
    channels, inputs = shape(state, "conv_first.weight")[:2]
    outputs = shape(state, "conv_last.weight")[0]
    side = math.isqrt(inputs // 3)
    check_rgb(outputs, "makes")
    if 3 * side * side != inputs or side not in UNSHUFFLED:
        check_rgb(inputs)
    enlargements = next(u for u in range(MOST_ENLARGEMENTS + 2) if f"conv_up{u + 1}.weight" not in state)
    scale = 2**enlargements // side
    if 2**enlargements % side or scale not in SCALES:
        raise CheckpointError(
            f"it enlarges {enlargements} times by 2 what is {side} times smaller than the image, "
            f"which is none of x{', x'.join(map(str, SCALES))}"
        )
    settings = {"channels": channels, "growth": shape(state, "body.0.rdb1.conv1.weight")[0]}
    settings |= {"unshuffled": side} if side > 1 else {}
    settings |= {"plus": True} if "body.0.rdb1.conv1x1.weight" in state else {}
    return Reading("rrdbnet", spelling, dict(state), count(state, r"body\.(\d+)\."), settings, (scale,))


def _named(spelling: str, rules: dict[str, str]) -> Callable[[State], Reading]:
    return lambda state: _reading(renamed(state, rules), spelling)


def _numbered(prefix: str) -> Callable[[State], Reading]:
    """ESRGAN's first code and ESRGAN+: layers by their numbers."""

    def read(state: State) -> Reading:
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        last = max((int(found[1]) for name in state if (found := re.match(r"(\d{1,3})\.", name))), default=0)
        enlargements, rest = divmod(last - 4, 3)
        if rest or not 0 <= enlargements <= MOST_ENLARGEMENTS:
            raise CheckpointError(f"its last layer is number {last}, and not 4, 7, 10, ...")
        blocks = count(state, r"1\.sub\.(\d+)\.RDB1\.")
        rules = {
            r"0\.": "conv_first.",
            rf"1\.sub\.{blocks}\.": "conv_body.",
            r"1\.sub\.(\d+)\.RDB(\d)\.conv1x1\.": r"body.\1.rdb\2.conv1x1.",
            r"1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.": r"body.\1.rdb\2.conv\3.",
            rf"{last - 2}\.": "conv_hr.",
            rf"{last}\.": "conv_last.",
        }
        rules |= {rf"{3 * number}\.": f"conv_up{number}." for number in range(1, enlargements + 1)}
        plus = "1.sub.0.RDB1.conv1x1.weight" in state
        return _reading(renamed(state, rules), "ESRGAN+" if plus else "ESRGAN")

    return read


def _graph(graph: Convolutions) -> Reading | None:
    """ESRGAN+ has convolutions of 1x1 without a bias beside the others."""
    small = [pair for pair in graph.pairs if pair[0].shape[2:] == (1, 1)]
    others = [pair for pair in graph.pairs if pair[0].shape[2:] != (1, 1)]
    blocks, enlargements = divmod(len(others) - 4, 15)
    if blocks < 1 or enlargements > MOST_ENLARGEMENTS or len(small) not in (0, 3 * blocks):
        return None
    dense = [f"body.{block}.rdb{part}" for block in range(blocks) for part in (1, 2, 3)]
    names = ["conv_first", *(f"{name}.conv{number}" for name in dense for number in range(1, 6)), "conv_body"]
    names += [f"conv_up{number}" for number in range(1, enlargements + 1)] + ["conv_hr", "conv_last"]
    state = graph.named(names, others)
    if small:
        state |= {f"{name}.conv1x1.weight": weight for name, (weight, _) in zip(dense, small, strict=True)}
    return _reading(state, "ncnn")


NAME = "RRDBNet"
BSRGAN = {
    r"RRDB_trunk\.(\d+)\.RDB(\d)\.": r"body.\1.rdb\2.",
    r"trunk_conv\.": "conv_body.",
    r"upconv(\d)\.": r"conv_up\1.",
    r"HRconv\.": "conv_hr.",
}
PUBLISHED = Published(
    (
        Spelling(NAME, ("body.0.rdb1.conv1.weight", "conv_first.weight"), _named("Real-ESRGAN", {})),
        Spelling(NAME, ("RRDB_trunk.0.RDB1.conv1.weight", "conv_first.weight"), _named("BSRGAN", BSRGAN)),
        Spelling(NAME, ("model.1.sub.0.RDB1.conv1.0.weight", "model.0.weight"), _numbered("model.")),
        Spelling(NAME, ("1.sub.0.RDB1.conv1.0.weight", "0.weight"), _numbered("")),
    ),
    graph=_graph,
)
