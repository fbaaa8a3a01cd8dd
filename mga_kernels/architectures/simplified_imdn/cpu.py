"""The simplified IMDN in convolutions of our own. Each block's result takes the place of its input."""

from __future__ import annotations

from ...networks.distilling import IMDB
from ...networks.interface import Halves
from ...networks.layers import each
from ...runtimes.cpu.distilling import distilling
from ...runtimes.cpu.layers import Conv, from_bytes
from ...runtimes.cpu.plan import PlainWeights
from ...runtimes.cpu.stages import Stage, against_shuffle
from ...runtimes.cpu.storage import Storage
from . import network as simplified


class SimplifiedImdnWeights(PlainWeights[simplified.BaseNet]):
    """``stages`` end with the first convolution once more, which takes less than to keep till then what it made."""

    @classmethod
    def against(cls, halves: Halves, kept: Storage) -> str | None:
        return super().against(halves, kept) or against_shuffle(halves.config.scale)

    def stages(self, base: simplified.BaseNet) -> list[Stage]:
        first = from_bytes(base.conv_first, self.value_range)
        stages = [Stage(first, "image", "x")]
        for block in each(IMDB, base.body):
            part = self.storage.whole(block.parts[0])
            steps, join = distilling(block, "x", "kept", part)
            stages += [*steps, Stage(join, "kept", "x", "x")]
        return [
            *stages,
            Stage(first, "image", "step 0"),
            Stage(Conv.of(base.conv_after_body), "x", "feature", "step 0"),
            Stage(Conv.of(base.upsampler[0]), "feature", "picture", enlarge=self.config.scale),
        ]
