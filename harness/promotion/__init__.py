"""`harness promote`, `rollback`, `verify`: from a candidate to a registered bundle."""
