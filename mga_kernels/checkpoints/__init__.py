"""Weights on disk: our own format (safetensors with a configuration inside) and published files of others."""

from ..networks.config import ModelConfig
from .native import load_model, read_metadata, save_model, shipped_models
from .published import read_state_dict

__all__ = ["ModelConfig", "load_model", "read_metadata", "read_state_dict", "save_model", "shipped_models"]
