"""Runs a packaged task: on this machine, in its image, or on the control plane."""
