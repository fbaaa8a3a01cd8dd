import pytest
from workloads import dynamic_filter


@pytest.mark.parametrize("case", ["5x5"])
def test_dynamic_filter(run, case):
    run(dynamic_filter, case)
