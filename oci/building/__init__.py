"""Building: from a Modelfile to layers and a manifest."""
