"""Small things that know nothing of sweeps: files, signals, secrets, environment, seeds."""
