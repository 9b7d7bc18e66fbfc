"""AMI's official partition Full-corpus-ASR: 136 meetings train, 18 dev, 16 test; no speaker in two parts.

As listed in BUTSpeechFIT/AMI-diarization-setup (F. Landini et al., Computer Speech & Language 71, 2022).
IB4005 is in no part: two of its speakers are heard in the dev meetings IB4001-4004.
"""

from __future__ import annotations

import re

PARTS = ("train", "dev", "test")
OFFICIAL_PARTITION = "full-corpus-asr"

# A series and the letters of its meetings; a range of series shares them.
_MEETINGS = {
    "train": """
        ES2002-2003abcd ES2005-2010abcd ES2012-2016abcd
        IS1000-1001abcd IS1002bcd IS1003-1004abcd IS1005abc IS1006-1007abcd
        TS3005-3012abcd
        IN1001 IN1002 IN1005 IN1007 IN1008 IN1009 IN1012 IN1013 IN1014 IN1016
        EN2001abde EN2003a EN2004a EN2005a EN2006ab EN2009bcd
    """,
    "dev": "ES2011abcd IS1008abcd TS3004abcd IB4001 IB4002 IB4003 IB4004 IB4010 IB4011",
    "test": "ES2004abcd IS1009abcd TS3003abcd EN2002abcd",
}
_ITEM = re.compile(r"(?P<site>[A-Z]{2})(?P<first>\d{4})(?:-(?P<last>\d{4}))?(?P<letters>[a-z]*)")


def _meetings(items: str) -> list[str]:
    """Return ``["ES2002a", "ES2002b", "ES2003a", "ES2003b"]`` for ``"ES2002-2003ab"``."""
    return [
        f"{match['site']}{number}{letter}"
        for match in _ITEM.finditer(items)
        for number in range(int(match["first"]), int(match["last"] or match["first"]) + 1)
        for letter in match["letters"] or [""]
    ]


OFFICIAL: dict[str, str] = {meeting: part for part in PARTS for meeting in _meetings(_MEETINGS[part])}


def group_of(meeting: str) -> str:
    """Return the series that shares speakers: ``EN2001`` of EN2001a; IB4001 and IN1001 are their own."""
    match = re.fullmatch(r"(.*\d)[a-z]", meeting)
    return match[1] if match else meeting


def sex_of(speaker: str) -> str | None:
    """Return "M" or "F" as the first letter of an AMI id has it (MEE068, FTD019UID); None of other ids."""
    return speaker[0] if re.fullmatch(r"[MF][A-Z]{2}\d{3}\w*", speaker) else None
