"""The convolutions of the CPU runtime, in pair planes (``layout``) or float maps (``alone.layout``).

A file has the contracts of a few operators, their definitions in PyTorch say what they compute, here or in a file
beside it; the kernels are in csrc/convolution and csrc/maps.
"""
