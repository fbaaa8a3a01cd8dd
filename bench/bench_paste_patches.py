import pytest
from workloads import COUNTS, paste_patches


@pytest.mark.parametrize("case", COUNTS)
def test_paste_patches(run, case):
    run(paste_patches, case)
