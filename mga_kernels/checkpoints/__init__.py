"""Weights on disk: our own format (safetensors with a configuration inside) and published files of others."""

from ..catalogue import shipped_models
from ..networks.config import ModelConfig
from .between import load_between
from .loading import is_whole, load_checkpoint
from .mask_guided import load_mask_guided
from .native import load_model, load_native, read_metadata, save_model
from .published import read_state_dict
from .recognise import recognise

__all__ = [
    "ModelConfig",
    "is_whole",
    "load_between",
    "load_checkpoint",
    "load_mask_guided",
    "load_model",
    "load_native",
    "read_metadata",
    "read_state_dict",
    "recognise",
    "save_model",
    "shipped_models",
]
