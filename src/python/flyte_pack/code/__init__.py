"""Reads Python code, and imports none of it: what it needs, what it names, what is missing."""
