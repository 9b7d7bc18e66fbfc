"""Registry of corpora: light specifications; readers are imported when a corpus is opened."""

from __future__ import annotations

from data.corpora.base import Corpus
from data.parts import Parts


def _same(part: str) -> Parts:
    return Parts(train=(part,), val=(part,), test=(part,))


CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            name="demo",
            description="generated voices: 96 speakers with 3 chapters each; no download, 205 MB a part",
            subsets={"clean": _same("clean"), "other": _same("other")},
            reader_at="data.corpora.demo:DemoReader",
        ),
        Corpus(
            name="librispeech",
            description="read English speech, from a folder in the OpenSLR layout (data root)",
            subsets={
                "clean": Parts(train=("train-clean-100",), val=("dev-clean",), test=("test-clean",)),
                "other": Parts(train=("train-other-500",), val=("dev-other",), test=("test-other",)),
            },
            reader_at="data.corpora.librispeech:LibriSpeechReader",
        ),
    )
}
