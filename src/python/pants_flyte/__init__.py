"""The Pants backend: targets, fields, the `[flyte]` subsystem, `package`, `run` and `experimental-deploy`."""
