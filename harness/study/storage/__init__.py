"""The folder `mlruns/`: its databases, locks, journal and spool."""
