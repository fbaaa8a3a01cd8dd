"""A network from outside the package, in one folder: a plain residual network, as one's own training may have made it.

    MGA_NETWORKS=examples/residual mga upscale photo.jpg -o large.png --model mine_x4.pth
    MGA_NETWORKS=examples/residual mga convert mine_x4.pth -o fast.safetensors --images photos/ --split 12+4

With it published files are recognised, run in convolutions of our own, and are cut in two; docs/extending.md says what
each field is for, docs/own_network.md what halves must do.
"""

from mga_kernels.networks import Network, register_network
from mga_kernels.networks.divided import Layout, channels_of_state

from .network import CHANNELS, BaseNet, RefineNet

NETWORK = register_network(
    Network(
        "residual",
        BaseNet,
        RefineNet,
        **channels_of_state(2, CHANNELS),
        split=(12, 4),
        value_range=255.0,
        working_values=2400,
        published=f"{__name__}.published:PUBLISHED",
        layout=Layout("conv_first", r"body\.", "conv_last", ("conv2",)),
        cpu=f"{__name__}.cpu:ResidualWeights",
    )
)
