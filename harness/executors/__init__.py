"""Where trials run: one protocol, local processes first."""
