"""Every operator by itself, on every backend that a device has; ``-k mask_head`` takes one."""

from collections.abc import Callable

import pytest
import workloads

CASES = {
    "select_patches": [*workloads.COUNTS],
    "filter_and_select": [*workloads.COUNTS],
    "gather_patches": [*workloads.COUNTS],
    "paste_patches": [*workloads.COUNTS],
    "convolve_pixels": ["skip", "bytes"],
    "dynamic_filter": ["5x5"],
    "high_pass": ["cells of 12"],
    "image_to_input": ["960x540"],
    "mask_head": ["softmax-then-pool", "pool-then-softmax"],
    "output_to_image": ["channels-last", "planar"],
}


@pytest.mark.parametrize(("operator", "case"), [(name, case) for name, cases in CASES.items() for case in cases])
def test_operator(run: Callable, operator: str, case: str) -> None:
    run(getattr(workloads, operator), case)
