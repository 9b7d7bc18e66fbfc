"""A sweep's life in Optuna: opened, resumed, asked, read."""
