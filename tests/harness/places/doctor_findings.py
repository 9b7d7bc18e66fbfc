"""What `harness doctor` finds, as tests look at it."""

from collections.abc import Iterable

from harness.maintenance.doctor.finding import Finding


def problems_in(findings: Iterable[Finding]) -> list[Finding]:
    """What is wrong; each of it says what to do, in one line."""
    found = [finding for finding in findings if finding.level != "ok"]
    assert all(finding.fix and "\n" not in finding.fix + finding.message for finding in found)
    return found
