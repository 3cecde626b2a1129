"""flyte_shim verifies, unpacks and caches a code bundle in a container, then becomes the command.

It runs before every task, so importing it costs nothing and it needs the standard library only.
What it shares with the program that builds bundles is here too: `hashing`, `manifest`, `paths`.
"""

__version__ = "0.1.0"
