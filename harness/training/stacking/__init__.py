"""Several trials trained as one network."""
