"""Plans in OpenVINO, on the CPU."""
