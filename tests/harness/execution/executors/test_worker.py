"""What a worker does between its trials."""

import gc
import queue

import pytest

from harness.execution.executors import worker


def test_after_its_first_trial_a_worker_s_collections_walk_no_imported_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frozen: list[int] = []

    class FakeLink:
        def __init__(self, connection: object) -> None:
            self.jobs: queue.Queue[int] = queue.Queue()
            for number in range(2):
                self.jobs.put(number)

        def send(self, kind: str, content: object) -> None:
            pass

    def serve(link: object, job: int, device: object) -> None:
        frozen.append(gc.get_freeze_count())
        if job == 1:
            raise SystemExit

    monkeypatch.setattr(worker, "Link", FakeLink)
    monkeypatch.setattr(worker, "Connection", lambda handle: None)
    monkeypatch.setattr(worker, "_serve", serve)
    monkeypatch.setattr("signal.signal", lambda *words: None)
    monkeypatch.setattr("harness.training.trial.open_device", lambda name: name)
    monkeypatch.setattr("sys.argv", ["worker", "7", "cpu"])
    before = gc.get_freeze_count()
    try:
        with pytest.raises(SystemExit):
            worker.main()
    finally:
        gc.unfreeze()
    assert frozen[0] == before
    assert frozen[1] > before + 10_000
