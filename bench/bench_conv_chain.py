import pytest
from workloads import conv_chain


@pytest.mark.parametrize("case", ["two blocks"])
def test_conv_chain(run, case):
    run(conv_chain, case)
