import pytest
from workloads import COUNTS, filter_and_select


@pytest.mark.parametrize("case", COUNTS)
def test_filter_and_select(run, case):
    run(filter_and_select, case)
