"""Plans for NVIDIA GPUs: a CUDA graph from bytes to bytes."""
