"""The store as an OCI registry, at /v2/."""
