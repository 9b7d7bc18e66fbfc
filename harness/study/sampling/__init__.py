"""Which configuration is tried next, and which training is pruned."""
