"""Graphs of ncnn (.param) with their weights (.bin), as Upscayl and the *-ncnn-vulkan programs have them.

``graph`` reads both, ``layers`` computes what a graph does, ``recognise`` finds the network that it is.
"""

from .graph import Graph, param_of
from .recognise import load_ncnn

__all__ = ["Graph", "load_ncnn", "param_of"]
