"""Makes images out of a base, third-party dependencies, the shim and first-party code, without a container engine."""
