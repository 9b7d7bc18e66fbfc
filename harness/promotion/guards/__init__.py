"""What a model must not be, measured, with the bound beside it."""
