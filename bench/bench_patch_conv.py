import pytest
from workloads import COUNTS, patch_conv


@pytest.mark.parametrize("case", COUNTS)
def test_patch_conv(run, case):
    run(patch_conv, case)
