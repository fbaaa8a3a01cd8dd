import pytest
from workloads import mask_head


@pytest.mark.parametrize("case", ["softmax-then-pool", "pool-then-softmax"])
def test_mask_head(run, case):
    run(mask_head, case)
