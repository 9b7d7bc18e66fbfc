"""Checks of the label map: the two historic bugs, an uneven deal and a map that changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from data.audit.check import Check
from data.digests import rank
from data.errors import DataError
from data.labels import LabelMap, build_label_map

BALANCE_SHARE = 0.05
_CHILD_SEEDS = ("1", "2")
_CHILD_TIMEOUT_S = 60


def check_balance(label_map: LabelMap) -> Check:
    """Check that the two classes have the same number of speakers, within .05 and one a group.

    ::

        |ones / total - .5| <= .05 + groups / (2 total)

    A group of an odd number cannot be halved. A model that always answers one class profits from an uneven deal.
    """
    total = len(label_map.classes)
    ones = sum(label_map.classes.values())
    groups = len({speaker.group for speaker in label_map.speakers})
    share = ones / total if total else 0.5
    bound = BALANCE_SHARE + (groups / (2 * total) if total else 0)
    ok = abs(share - 0.5) <= bound
    larger, smaller = sorted((round(100 * share), 100 - round(100 * share)), reverse=True)
    message = f"label map: classes of {total} speakers are dealt {larger}/{smaller} (.5 +- {bound:.3f})"
    if not ok:
        message += (
            f". Label rule {label_map.rule!r} is uneven: a model that always answers the larger class looks "
            f"{larger} % right. Use labels: rank"
        )
    return Check("label map balance", ok, share, f".5 +- {bound:.3f}", message)


def check_digest(label_map: LabelMap) -> Check:
    """Rebuild the map from speakers in other orders, and in processes of another PYTHONHASHSEED."""
    bound = f"digest {label_map.digest[:12]} every time"
    for how, rebuilt in _rebuilt(label_map):
        if rebuilt != label_map.digest:
            message = (
                f"label map: digest {label_map.digest[:12]} became {rebuilt[:12]} when rebuilt {how}: labels "
                f"of rule {label_map.rule!r} would change between epochs or processes, and the loss stay at "
                "ln 2 = 0.693. Use labels: rank"
            )
            return Check("label map digest", False, rebuilt, bound, message)
    return Check(
        "label map digest",
        True,
        label_map.digest,
        bound,
        f"label map: digest {label_map.digest[:12]} is equal in any order and under another PYTHONHASHSEED",
    )


def _rebuilt(label_map: LabelMap) -> list[tuple[str, str]]:
    """Return (how, digest) of each rebuilding; an error's text stands for the digest it prevented."""
    ordered = sorted(label_map.speakers)
    shuffled = sorted(ordered, key=lambda speaker: rank("shuffled", speaker.id))
    outcomes = []
    for how, speakers in (
        ("from reversed speakers", ordered[::-1]),
        ("from shuffled speakers", shuffled),
        ("once more", ordered),
    ):
        outcomes.append((how, build_label_map(label_map.rule, speakers).digest))
    for seed in _CHILD_SEEDS:
        outcomes.append((f"in a process with PYTHONHASHSEED={seed}", _digest_in_child(label_map, seed)))
    return outcomes


def _digest_in_child(label_map: LabelMap, hash_seed: str) -> str:
    speakers = [[speaker.id, speaker.sex, speaker.group] for speaker in sorted(label_map.speakers)]
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    child = subprocess.run(
        [sys.executable, "-P", "-m", "data.audit.rebuild_labels"],
        input=json.dumps({"rule": label_map.rule, "speakers": speakers}),
        capture_output=True,
        text=True,
        timeout=_CHILD_TIMEOUT_S,
        env=environment,
        check=False,
    )
    if child.returncode:
        reason = child.stderr.strip().splitlines()[-1:] or ["no message"]
        raise DataError(f"the label map could not be rebuilt in a fresh process: {reason[0]}")
    return child.stdout.strip()
