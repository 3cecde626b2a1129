"""What an image is: references, descriptors, manifests, layers, layouts (OCI image specification 1.0). No network."""
