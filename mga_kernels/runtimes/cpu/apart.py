"""Stages that write nothing over: what each makes has a place of its own, so that all of it is there after a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ...ops.convolution.map_layout import GROUP
from .rows import Use, reads, written
from .stages import Part, Stage, part_of

READ = "x", "skip", "also", "parts"  # of a stage, in the order of ``reads``


def apart(stages: Sequence[Stage], external: Collection[str]) -> list[Stage] | None:
    """``stages`` in as many slots as it takes; those that are ``external`` stay.

    What is read together, as inputs side by side, stays side by side in one slot. None where that cannot be, since one
    of it takes a part of another's place.
    """
    made: list[Use] = []  # what stages have written, in order
    together: list[int] = []  # of each the number of another that is read with it, or its own
    latest: dict[tuple[str, int], int] = {}  # by slot and group
    uses: list[dict[str, int]] = []  # of each stage what it reads and writes, by the names of its fields

    def first_of(number: int) -> int:
        while together[number] != number:
            number = together[number]
        return number

    for stage in stages:
        fields: dict[str, int] = {}
        given = [name for name in READ if getattr(stage, name) is not None]
        for name, use in zip(given, reads(stage), strict=True):
            groups = range(use.first, use.first + use.groups)
            found = sorted({latest[use.slot, group] for group in groups if (use.slot, group) in latest})
            for number in found:
                together[first_of(number)] = first_of(found[0])
            if found:
                fields[name] = found[0]
        use = written(stage)
        if use.slot not in external:
            fields["out"] = len(made)
            latest |= {(use.slot, group): len(made) for group in range(use.first, use.first + use.groups)}
            together.append(len(made))
            made.append(use)
        uses.append(fields)

    slots: dict[int, list[Use]] = defaultdict(list)
    for number, use in enumerate(made):
        others = slots[first_of(number)]
        if any(use.meets(other) for other in others):
            return None
        others.append(use)

    def moved(part: Part, number: int) -> Part:
        slot, channel = part_of(part)
        first = first_of(number)
        channel -= GROUP * min(use.first for use in slots[first])
        name = f"{slot} {first}"
        return (name, channel) if channel else name

    separate = []
    for stage, fields in zip(stages, uses, strict=True):
        parts: dict[str, Any] = {name: moved(getattr(stage, name), number) for name, number in fields.items()}
        separate.append(replace(stage, **parts))
    return separate
