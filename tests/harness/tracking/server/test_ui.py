"""`harness ui` in a real browser: the trials of a study, side by side."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.conftest import FinishedSweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def address(told: FinishedSweep, tmp_path_factory: pytest.TempPathFactory, demo_cache: Path):
    folder = tmp_path_factory.mktemp("ui")
    shutil.copytree(told.folder, folder, dirs_exist_ok=True)
    environment = {**os.environ, "HARNESS_CACHE": str(demo_cache)}
    command = [sys.executable, "-m", "harness.cli.main"]
    server = subprocess.Popen(
        [*command, "ui", "--json"], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    text = ""
    while not text.rstrip().endswith("}\n}"):
        line = server.stdout.readline()
        assert line, "harness ui ended"
        text += line
    yield json.loads(text)
    server.stdout.close()
    server.send_signal(signal.SIGINT)
    assert server.wait(timeout=30) == 0


def test_it_listens_on_loopback_only_and_knows_its_name(address) -> None:
    port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)", address["url"]).group(1))
    listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
    local = [
        row.split()[1]
        for row in listening
        if row.split()[3] == "0A" and row.split()[1].endswith(f":{port:04X}")
    ]
    assert local == [f"0100007F:{port:04X}"]
    import urllib.error
    import urllib.request

    foreign = urllib.request.Request(
        address["url"] + "/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(foreign, timeout=20)
    assert refused.value.code == 403
    refused.value.close()


def test_trials_and_their_charts_stand_side_by_side(address, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.goto(address["studies"]["told"])
        page.get_by_text("000 mfcc").first.wait_for(timeout=60_000)
        page.get_by_text("001 log_mel").first.wait_for(timeout=60_000)
        page.goto(address["studies"]["told"] + "&compareRunsMode=CHART")
        page.get_by_text("best/score").first.wait_for(timeout=60_000)
        page.screenshot(path=tmp_path / "charts.png")
        browser.close()
