import pytest
from workloads import COUNTS, paste_shuffled


@pytest.mark.parametrize("case", COUNTS)
def test_paste_shuffled(run, case):
    run(paste_shuffled, case)
