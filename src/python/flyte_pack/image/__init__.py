"""Makes images out of a base, packages, the shim and code, without a container engine."""
