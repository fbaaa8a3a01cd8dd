"""The published files of MSRResNet: values in 0..1."""

from __future__ import annotations

from collections.abc import Callable

from ...checkpoints.spelling import Published, Reading, Spelling, State, count, renamed, shape, shuffled_scale


def _msrresnet(spelling: str, rules: dict[str, str]) -> Callable[[State], Reading]:
    def read(state: State) -> Reading:
        state = renamed(state, rules)
        values, channels = shape(state, "upconv1.weight")[:2]
        scale = shuffled_scale(values, channels) ** (2 if "upconv2.weight" in state else 1)
        blocks = count(state, r"recon_trunk\.(\d+)\.")
        return Reading("msrresnet", spelling, state, blocks, {"channels": channels}, (scale,))

    return read


PUBLISHED = Published(
    (
        Spelling("MSRResNet", ("conv_first.weight", "recon_trunk.0.conv1.weight"), _msrresnet("original", {})),
        Spelling(
            "MSRResNet",
            ("conv_first.weight", "body.0.conv1.weight", "conv_hr.weight"),
            _msrresnet("BasicSR", {r"body\.": "recon_trunk.", r"conv_hr\.": "HRconv."}),
        ),
        Spelling(
            "MSRResNet",
            ("conv_first.weight", "trunk_net.0.conv1.weight", "conv_hr.weight"),
            _msrresnet(
                "MMagic",
                {
                    r"trunk_net\.": "recon_trunk.",
                    r"upsample(\d)\.upsample_conv\.": r"upconv\1.",
                    r"conv_hr\.": "HRconv.",
                },
            ),
        ),
    )
)
