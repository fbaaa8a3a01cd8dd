"""What ``MaskGuidedSR.upscale`` returns where it is asked for more than the picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pictures import Picture


@dataclass(frozen=True)
class Result:
    """One upscaled photograph.

    ``image`` is what ``upscale`` returns. ``refined``: cells refined in it, None where the dense network made it.
    ``notes`` say what of the source could not be kept, one sentence each. ``timings``: seconds by stage: "read" to a
    photograph in memory, "run" from its bytes to those of the result, "write" into the form of the source.
    """

    image: Picture
    refined: int | None
    notes: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
