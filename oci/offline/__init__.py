"""Hand-over without a registry: archives and folders in the OCI image layout."""
