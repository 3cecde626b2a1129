"""The Pants backend: targets, fields, subsystems, goals."""
