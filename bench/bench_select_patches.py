import pytest
from workloads import COUNTS, select_patches


@pytest.mark.parametrize("case", COUNTS)
def test_select_patches(run, case):
    run(select_patches, case)
