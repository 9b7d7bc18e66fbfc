"""Too few clusters: one bound and one wording, for commands that must not wait for numpy."""

FEW_CLUSTERS = 10  # below this an interval is printed, and never counts as evidence


def few_clusters_note(clusters: int) -> str:
    """What stands beside K, the number of clusters, where it is too small to claim anything; "" elsewhere."""
    return ", few clusters" if clusters < FEW_CLUSTERS else ""
