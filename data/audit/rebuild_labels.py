"""Child process of the audit: reads ``{"rule", "speakers"}`` on stdin, prints the label map's digest."""

from __future__ import annotations

import json
import sys

from data.labels import Speaker, build_label_map


def main() -> None:
    """Rebuild the map from stdin in this process, whose PYTHONHASHSEED is another, and print its digest."""
    request = json.load(sys.stdin)
    speakers = [Speaker(*fields) for fields in request["speakers"]]
    sys.stdout.write(build_label_map(request["rule"], speakers).digest + "\n")


if __name__ == "__main__":
    main()
