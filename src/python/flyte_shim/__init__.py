"""flyte_shim verifies, unpacks and caches a code bundle in a container, then becomes the command.

It runs before every task, so it imports fast and needs only the standard library. The program that
builds bundles shares `hashing` and `paths`.
"""

__version__ = "0.1.0"
