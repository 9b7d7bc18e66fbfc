"""MLflow: one study's runs in one experiment; the rest of the harness reaches it through here."""
