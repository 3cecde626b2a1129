"""The report of `flyte-explain`: what ships and why, as one HTML file that needs no network."""
