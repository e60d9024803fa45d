"""Layers that only the holders of a key can read, as ocicrypt writes them."""
