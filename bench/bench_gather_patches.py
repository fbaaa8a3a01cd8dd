import pytest
from workloads import COUNTS, gather_patches


@pytest.mark.parametrize("case", COUNTS)
def test_gather_patches(run, case):
    run(gather_patches, case)
