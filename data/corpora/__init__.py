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
            reader_at="data.corpora.demo.demo:DemoReader",
            companions=("ami",),
        ),
        Corpus(
            name="librispeech",
            description="read English speech, from a folder in the OpenSLR layout (data root)",
            subsets={
                "clean": Parts(train=("train-clean-100",), val=("dev-clean",), test=("test-clean",)),
                "other": Parts(train=("train-other-500",), val=("dev-other",), test=("test-other",)),
            },
            reader_at="data.corpora.librispeech.disk:LibriSpeechReader",
            companions=("ami",),
        ),
        Corpus(
            name="librispeech_hub",
            description="LibriSpeech in parquet: openslr/librispeech_asr on the hub, or its files in the data root",
            subsets={
                "clean": Parts(train=("train.clean.100",), val=("validation.clean",), test=("test.clean",)),
                "other": Parts(train=("train.other.500",), val=("validation.other",), test=("test.other",)),
            },
            reader_at="data.corpora.librispeech.hub:LibriSpeechHubReader",
            companions=("ami_hub",),
        ),
        Corpus(
            name="ami",
            description="meetings of 3-5 speakers, from a folder with amicorpus/ and only_words/ (data root)",
            subsets={"ami": Parts(train=("train",), val=("dev",), test=("test",))},
            reader_at="data.corpora.ami.disk:AmiReader",
            companions=("librispeech",),
        ),
        Corpus(
            name="ami_hub",
            description="AMI in parquet: diarizers-community/ami on the hub, or its files in the data root",
            subsets={"ami": Parts(train=("train",), val=("validation",), test=("test",))},
            reader_at="data.corpora.ami.hub:AmiHubReader",
            companions=("librispeech_hub",),
        ),
    )
}
