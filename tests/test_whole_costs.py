"""What whole networks cost, against the figures that are known of them."""

import pytest

from mga.complexity import WholeCosts
from mga_kernels.networks import WholeConfig

COSTS = {  # by hand: thousands of multiply-accumulates of the convolutions for each LR pixel, and of parameters
    "rrdbnet 64/23 x4": (WholeConfig("rrdbnet", 4, 23), 17_927, 16_698),
    "rrdbnet 64/6 x4": (WholeConfig("rrdbnet", 4, 6), 5_706, 4_468),
    "rrdbnet 64/23 x2, unshuffled": (WholeConfig("rrdbnet", 2, 23, {"unshuffled": 2}), 4_483, 16_703),
    "rrdbnet 64/23 x1, unshuffled": (WholeConfig("rrdbnet", 1, 23, {"unshuffled": 4}), 1_122, 16_724),
    "rrdbnet 32/12 x4": (WholeConfig("rrdbnet", 4, 12, {"channels": 32, "growth": 32}), 5_332, 5_021),
    "compact 64/16 x4": (WholeConfig("compact", 4, 16), 619, 621),
    "compact 64/16 x2": (WholeConfig("compact", 2, 16), 598, 601),
    "compact 64/32 x4": (WholeConfig("compact", 4, 32), 1_209, 1_213),
    "compact 24/8 x4": (WholeConfig("compact", 4, 8, {"channels": 24}), 52, 53),
    "span 48 x4": (WholeConfig("span", 4, 6), 425, 426),
    "span 48 x2": (WholeConfig("span", 2, 6), 410, 411),
    "span 52 x4": (WholeConfig("span", 4, 6, {"channels": 52}), 497, 498),
    "edsr baseline x4": (WholeConfig("edsr", 4, 16), 1_983, 1_518),
    "edsr large x4": (WholeConfig("edsr", 4, 32, {"channels": 256, "residual": 0.1}), 50_253, 43_090),
    "span 28 x4": (WholeConfig("span", 4, 6, {"channels": 28}), 150, 151),
}


@pytest.mark.parametrize("name", COSTS)
def test_what_they_cost(name):
    config, macs, parameters = COSTS[name]
    costs = WholeCosts(config)
    assert round(costs.parameters() / 1000) == parameters
    side = 48
    flops = costs.cost("whole", side, side).flops  # of convolutions alone, two for each multiply-accumulate
    assert flops / 2 / side**2 / 1000 == pytest.approx(macs, abs=0.5)
