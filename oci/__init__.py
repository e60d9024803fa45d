"""The artifact: digests, manifests, the store, building, and registries."""
