"""What an image is (OCI image specification). Nothing here uses the network."""
