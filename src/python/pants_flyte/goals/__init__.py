"""One module per goal; each ties a field set to the shared work."""
