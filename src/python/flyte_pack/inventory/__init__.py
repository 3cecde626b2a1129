"""Inventories of what is packaged: software bills of materials (CycloneDX 1.6), as JSON."""
