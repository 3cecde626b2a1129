"""Does the work: code bundles, images, local and remote runs, registries, stores, deployments.

Knows nothing of Pants. `python -m flyte_pack COMMAND` runs it, as a sandboxed process of the build
or as a program that the user starts; `flyte_pack.__main__` lists the commands.
"""
