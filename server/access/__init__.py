"""Who may ask for what: keys, their roles, and what a server that listens to a network must have."""
