"""Plans that call the modules of PyTorch, on any device."""
