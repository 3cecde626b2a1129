"""Does the work: code bundles, local runs, stores and deployments.

Knows nothing of Pants. Runs as a sandboxed process of the build (`python -m flyte_pack bundle`) or
as the program that a person starts (`run`, `deploy`): the commands of `flyte_pack.__main__`.
"""
