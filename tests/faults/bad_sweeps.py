"""Sweep files that cannot be run: what stands in them, and what is said of each (its line, its key, why)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.config.files.sweep_loader import MAX_BYTES


def parameters(text: str) -> str:
    """A file whose parameters begin in line 3."""
    return f"name: x\nparameters:\n  {text}\n"


# name: (text with one mistake, line, key, words of the message)
MALFORMED: dict[str, tuple[str, int | None, str, str]] = {
    # the top level
    "name missing": ("seed: 1\n", None, "name", "is required and missing"),
    "name with a space": ("name: my sweep\n", 1, "name", "for example my-sweep"),
    "name a number": ("seed: 0\nname: 2024\n", 2, "name", "must be text; got 2024"),
    "name of a path": ("name: ../x\n", 1, "name", "no name for a study"),
    "unknown key": ("name: x\nbudgets: {}\n", 2, "budgets", "did you mean budget?"),
    "key in other case": ("name: x\nSeed: 1\n", 2, "Seed", "did you mean seed?"),
    "data key at the top": ("name: x\ncorpus: demo\n", 2, "corpus", "it belongs under data, as data.corpus"),
    "parameter at the top": ("name: x\nepochs: 3\n", 2, "epochs", "as parameters.epochs"),
    "parameter under data": ("name: x\ndata:\n  width: 1\n", 3, "data.width", "as parameters.width"),
    "seed negative": ("name: x\nseed: -1\n", 2, "seed", "greater than or equal to 0; got -1"),
    "seed a word": ("name: x\nseed: one\n", 2, "seed", 'must be a whole number; got "one"'),
    "seed quoted": ("name: x\nseed: '1'\n", 2, "seed", 'must be a whole number; got "1"'),
    "seed true": ("name: x\nseed: true\n", 2, "seed", "must be a whole number; got true"),
    "too many workers": ("name: x\nworkers: 1000\n", 2, "workers", "less than or equal to 256; got 1000"),
    "merge key": ("name: x\n<<: {seed: 1}\n", 2, "<<", "no such key"),
    # sections
    "section a number": ("name: x\ndata: 5\n", 2, "data", "must be a mapping of keys to values; got 5"),
    "section a list": ("name: x\nbudget: [1]\n", 2, "budget", "must be a mapping of keys to values; got [1]"),
    "parameters a list": ("name: x\nparameters: [mfcc]\n", 2, "parameters", "a mapping of names to values"),
    "sampler unknown": ("name: x\nsampler: tpee\n", 2, "sampler.type", "did you mean tpe?"),
    "sampler key": ("name: x\nsampler: {typ: tpe}\n", 2, "sampler.typ", "did you mean type?"),
    "pruner unknown": ("name: x\npruner:\n  type: medan\n", 3, "pruner.type", "did you mean median?"),
    "budget of none": ("name: x\nbudget:\n  trials: 0\n", 3, "budget.trials", "greater than or equal to 1; got 0"),
    "budget endless": ("name: x\nbudget:\n  hours: .inf\n", 3, "budget.hours", "must be a finite number"),
    "budget of parts": ("name: x\nbudget:\n  trials: 2.5\n", 3, "budget.trials", "must be a whole number; got 2.5"),
    # data
    "corpus unknown": ("name: x\ndata:\n  corpus: librispech\n", 3, "data.corpus", "did you mean 'librispeech'?"),
    "subset unknown": ("name: x\ndata:\n  seed: 1\n  subset: cleen\n", 4, "data.subset", "did you mean 'clean'?"),
    "evaluate_on unknown": ("name: x\ndata:\n  evaluate_on: [clean, othr]\n", 3, "data.evaluate_on", "did you mean 'other'?"),
    "variant unknown": ("name: x\ndata:\n  variant: unsen\n", 3, "data.variant", "did you mean 'unseen'?"),
    "data key": ("name: x\ndata:\n  taks: pseudo\n", 3, "data.taks", "did you mean task?"),
    "too many windows": ("name: x\ndata:\n  val_windows: 4000\n", 3, "data.val_windows", "more than 2000"),
    "windows quoted": ("name: x\ndata:\n  val_windows: '400'\n", 3, "data.val_windows", "must be a whole number"),
    # parameters
    "parameter unknown": (parameters("learning_rat: 1e-3"), 3, "parameters.learning_rat", "did you mean learning_rate?"),
    "front end left out": (parameters("n_mfcc: 20"), 3, "parameters.n_mfcc", "did you mean mfcc.n_mfcc?"),
    "front end nested": (parameters("mfcc: {n_mfcc: 20}"), 3, "parameters.mfcc", "written mfcc.n_mels, one line each"),
    "front end unknown": (parameters("feature: mfc"), 3, "parameters.feature", "did you mean mfcc?"),
    "one of several": (parameters("feature:\n  - log_mel\n  - mfc"), 5, "parameters.feature.1", "did you mean mfcc?"),
    "value too large": (parameters("dropout: 1.5"), 3, "parameters.dropout", "less than 1; got 1.5 (Dropout in the head)"),
    "value a word": (parameters("epochs: many"), 3, "parameters.epochs", 'must be a whole number; got "many"'),
    "value quoted": (parameters("learning_rate: '1e-3'"), 3, "parameters.learning_rate", "must be a number"),
    "value true": (parameters("epochs: true"), 3, "parameters.epochs", "must be a whole number; got true"),
    "value endless": (parameters("learning_rate: .inf"), 3, "parameters.learning_rate", "must be finite"),
    "value undefined": (parameters("mfcc.f_min: .nan"), 3, "parameters.mfcc.f_min", "must be finite"),
    "value missing": (parameters("epochs:"), 3, "parameters.epochs", "must be a whole number; got null"),
    "value even": (parameters("kernel_size: [3, 4]"), 3, "parameters.kernel_size.1", "3 or 5"),
    "no choice": (parameters("feature: []"), 3, "parameters.feature", "at least 1 item"),
    "choice twice": (parameters("width: [1, 1.0]"), 3, "parameters.width", "1.0 stands twice"),
    "choice a list": (parameters("width: [1, [2]]"), 3, "parameters.width.1", "must be one number or word; got [2]"),
    "no form": (parameters("width: {from: 1, to: 2}"), 3, "parameters.width", "exactly one of value:, choice:"),
    "two forms": (parameters("width: {value: 1, choice: [1, 2]}"), 3, "parameters.width", "exactly one of"),
    "form key": (parameters("width: {float: [1, 2], logg: true}"), 3, "parameters.width.logg", "did you mean log?"),
    "three bounds": (parameters("epochs: {int: [1, 2, 3]}"), 3, "parameters.epochs.int", "must be [low, high]; got [1, 2, 3]"),
    "bounds reversed": (parameters("width: {float: [2, 1]}"), 3, "parameters.width", "the lower bound 2.0 is above the upper bound 1.0"),
    "bounds a word": (parameters("width: {float: [a, 1]}"), 3, "parameters.width.float.0", 'must be a number; got "a"'),
    "bounds of parts": (parameters("epochs: {int: [1.5, 3]}"), 3, "parameters.epochs.int.0", "must be a whole number"),
    "bounds endless": (parameters("width: {float: [1, .inf]}"), 3, "parameters.width", "finite"),
    "bounds beyond": (parameters("width: {float: [1, 9]}"), 3, "parameters.width", "less than or equal to 4; got 9"),
    "log from nothing": (parameters("weight_decay: {float: [0, 1e-2], log: true}"), 3, "parameters.weight_decay", "above 0; got 0.0"),
    "log and step": (parameters("batch_size: {int: [8, 64], step: 8, log: true}"), 3, "parameters.batch_size", "leave one of the two out"),
    "log a word": (parameters("width: {float: [1, 2], log: 'yes'}"), 3, "parameters.width.log", "must be true or false"),
    "step past the end": (parameters("batch_size: {int: [16, 70], step: 16}"), 3, "parameters.batch_size", "do not meet the upper bound 70: write 64"),
    "step of parts past it": (parameters("dropout: {float: [0.1, 0.35], step: 0.1}"), 3, "parameters.dropout", "write 0.3"),
    "step of nothing": (parameters("dropout: {float: [0.1, 0.3], step: 0}"), 3, "parameters.dropout.step", "greater than 0"),
    "front end never chosen": (parameters("feature: mfcc\n  log_mel.n_mels: 40"), 4, "parameters.log_mel.n_mels", "feature is never log_mel here (mfcc)"),
    "given twice": ("name: x\ndata: {subset: clean}\nparameters:\n  subset: [clean, other]\n", 4, "parameters.subset", "stands under data too"),
    "searched subset unknown": (parameters("subset: [clean, othr]"), 3, "parameters.subset.1", "did you mean 'other'?"),
    "too much data": (parameters("train_windows: {int: [100, 1000000]}"), 3, "parameters.train_windows", "more than 32 sets of data"),
    # laws of several values together
    "more coefficients than bands": (parameters("mfcc.n_mfcc: 100"), 3, "parameters.mfcc.n_mfcc", "n_mfcc <= 80"),
    "only at an end": (parameters("mfcc.n_mfcc: {int: [10, 81]}"), 3, "parameters.mfcc.n_mfcc", "n_mfcc <= 80"),
    "only in one of many": (parameters("mfcc.win_length: [400, 500]\n  mfcc.n_fft: [400, 512]\n  mfcc.n_mels: 40"), 3, "parameters.mfcc.win_length", "win_length 500 is longer than n_fft 400"),
    "even between odd ends": (parameters("kernel_size: {int: [1, 7]}"), 3, "parameters.kernel_size", "no middle tap"),
    "grid without end": ("name: x\nsampler: grid\nparameters:\n  width: {float: [1, 2]}\n", 2, "sampler", "grid needs a step or a list of choices for width"),
    "grid too large": ("name: x\nsampler: grid\nparameters:\n  epochs: {int: [1, 9999]}\n  batch_size: {int: [2, 999]}\n", 2, "sampler", "so many combinations"),
    # conditions
    "condition on nothing": (parameters("width: {choice: [1, 2], when: {featur: mfcc}}\n  feature: [mfcc]"), 3, "parameters.width.when.featur", "did you mean feature?"),
    "condition on itself": (parameters("width: {choice: [1, 2], when: {width: 1}}"), 3, "parameters.width.when.width", "not another parameter"),
    "condition never true": (parameters("feature: [mfcc, log_mel]\n  width: {value: 1, when: {feature: waveform}}"), 4, "parameters.width.when.feature", "'waveform' is never a value of feature (mfcc, log_mel)"),
    "condition on a range": (parameters("epochs: {int: [1, 9]}\n  width: {value: 1, when: {epochs: 3}}"), 4, "parameters.width.when.epochs", "is a range"),
    "condition empty": (parameters("feature: [mfcc]\n  width: {value: 1, when: {feature: []}}"), 4, "parameters.width.when.feature", "never true"),
    "condition a mapping": (parameters("feature: [mfcc]\n  width: {value: 1, when: {feature: {a: 1}}}"), 4, "parameters.width.when.feature", "one number or word"),
    "conditions in a circle": (parameters("width: {choice: [1, 2], when: {dropout: 0}}\n  dropout: {choice: [0, .5], when: {width: 1}}"), 3, "parameters.width", "width, dropout depend on each other in a circle"),
    # numbers and words that YAML 1.1, or a person, would take for something else
    "trials a float": ("name: x\nbudget: {trials: 1e3}\n", 2, "budget.trials", "must be a whole number; got 1000.0"),
    "trials negative": ("name: x\nbudget: {trials: -5}\n", 2, "budget.trials", "greater than or equal to 1; got -5"),
    "trials too many": ("name: x\nbudget: {trials: 100001}\n", 2, "budget.trials", "less than or equal to 100000"),
    "hours negative": ("name: x\nbudget: {hours: -1}\n", 2, "budget.hours", "must be greater than 0; got -1"),
    "hours sexagesimal": ("name: x\nbudget: {hours: 1:30}\n", 2, "budget.hours", 'must be a number; got "1:30"'),
    "hours with a unit": ("name: x\nbudget: {hours: 2h}\n", 2, "budget.hours", 'must be a number; got "2h"'),
    "seed beyond 31 bits": ("name: x\nseed: 99999999999999999999\n", 2, "seed", "less than 2147483648; got 99999999999999999999"),
    "seed of 41 digits": ("name: x\nseed: " + 41 * "9" + "\n", 2, "seed", "a number of 41 digits is not allowed"),
    "seed no octal": ("name: x\nseed: 0o9\n", 2, "seed", 'must be a whole number; got "0o9"'),
    "seed with an underscore": ("name: x\nseed: 1_000\n", 2, "seed", 'must be a whole number; got "1_000"'),
    "seed a date": ("name: x\nseed: 2024-01-01\n", 2, "seed", 'must be a whole number; got "2024-01-01"'),
    "seed undefined": ("name: x\nseed: .nan\n", 2, "seed", "must be a whole number; got NaN"),
    "seed endless text": ("name: x\nseed: " + 9_000 * "a" + "\n", 2, "seed", "aaa..."),
    "value beyond floats": (parameters("width: 1e999"), 3, "parameters.width", "must be finite; got inf"),
    "value a share": (parameters("dropout: 50%"), 3, "parameters.dropout", 'must be a number; got "50%"'),
    "yes is no boolean": (parameters("width: {float: [1, 2], log: yes}"), 3, "parameters.width.log", 'true or false; got "yes"'),
    # names
    "name empty": ("name:\n", 1, "name", "must be text; got null"),
    "name of two lines": ('name: "a\\nb"\n', 1, "name", "is no name for a study"),
    "name in other letters": ("name: żółw\n", 1, "name", "for example w"),
    "name too long": (f"name: {81 * 'x'}\n", 1, "name", "80 at most"),
    "name hidden": ("name: .hidden\n", 1, "name", "for example hidden"),
    "name turned round": ("name: x\u202e\n", 1, "name", r"'x\u202e' is no name"),
    "key empty": ("name: x\n'': 3\n", 2, "", "no such key; there is name, description"),
    "key null": ("name: x\n~: 3\n", 2, "~", "no such key"),
    "key of two lines": ('name: x\n"a\\nb": 3\n', 2, r"a\nb", "no such key"),
    "key that paints": ('name: x\n"\\e[31mred": 1\n', 2, r"\x1b[31mred", "no such key"),
    "key of 900 letters": (f"name: x\n{900 * 'k'}: 1\n", 2, 117 * "k" + "...", "no such key"),
    "description a number": ("name: x\ndescription: 5\n", 2, "description", "must be text; got 5"),
    "description too long": (f"name: x\ndescription: {4_001 * 'y'}\n", 2, "description", "at most 4000 characters"),
    # ranges and steps
    "range beyond the field": (parameters("epochs: {int: [1, 1000000000000]}"), 3, "parameters.epochs", "less than or equal to 10000"),
    "step too fine": (parameters("width: {float: [1, 2], step: 1e-300}"), 3, "parameters.width", "take larger ones, or leave step out"),
    "step denormal": (parameters("width: {float: [1, 2], step: 5e-324}"), 3, "parameters.width", "take larger ones"),
    "step undefined": (parameters("width: {float: [1, 2], step: .nan}"), 3, "parameters.width.step", "must be a finite number; got NaN"),
    "log below nothing": (parameters("width: {float: [-1, 1], log: true}"), 3, "parameters.width", "above 0; got -1.0"),
    "log of whole numbers from 0": (parameters("mfcc.n_mfcc: {int: [0, 40], log: true}"), 3, "parameters.mfcc.n_mfcc", "lower bound of 1 or more; got 0"),
    "conditions a list": (parameters("width: {value: 1, when: [a]}"), 3, "parameters.width.when", "must be a mapping"),
    "batch of one": (parameters("batch_size: 1"), 3, "parameters.batch_size", "greater than or equal to 2; got 1"),
    # sections
    "warm-up that no trial outlives": ("name: x\npruner:\n  warmup_epochs: 5\nparameters: {epochs: 5}\n", 3, "pruner.warmup_epochs", "no trial trains more than 5"),
    "warm-up of the longest trial": ("name: x\npruner:\n  warmup_epochs: 40\nparameters: {epochs: {int: [3, 40]}}\n", 3, "pruner.warmup_epochs", "write fewer, or pruner: none"),
    "warm-up of none": ("name: x\npruner: {warmup_epochs: 0}\n", 2, "pruner.warmup_epochs", "greater than or equal to 1; got 0"),
    "rungs of everyone": ("name: x\npruner: {type: hyperband, reduction_factor: 1}\n", 2, "pruner.reduction_factor", "greater than or equal to 2"),
    "control unknown": ("name: x\ncontrols: [unsen]\n", 2, "controls.0", "did you mean unseen?"),
    "control twice": ("name: x\ncontrols: [unseen, unseen]\n", 2, "controls", "a control is named twice"),
    "controls a word": ("name: x\ncontrols: unseen\n", 2, "controls", 'must be a list; got "unseen"'),
    "baseline unknown": ("name: x\nbaseline: {widht: 1}\n", 2, "baseline.widht", "did you mean width?"),
    "baseline a choice": ("name: x\nbaseline: {width: [1]}\n", 2, "baseline.width", "one number or word; got [1]"),
    "parts of nothing": ("name: x\ndata: {parts: {a: []}}\n", 2, "data.parts.a", "a split needs at least one part"),
    "parts elsewhere": ("name: x\ndata: {parts: {clean: ['../../etc']}}\n", 2, "data.parts.clean", "is not the name of a part"),
    "parts twice": ("name: x\ndata: {parts: {clean: [a, a]}}\n", 2, "data.parts.clean", "a part is named twice"),
    "evaluated twice": ("name: x\ndata: {evaluate_on: [clean, clean]}\n", 2, "data.evaluate_on", "names a subset twice"),
    "windows negative": ("name: x\ndata: {train_windows: -4}\n", 2, "data.train_windows", "greater than or equal to 2; got -4"),
    "one speaker": ("name: x\ndata: {speakers: 1}\n", 2, "data.speakers", "greater than or equal to 2; got 1"),
    "variants that are copies": ("name: x\ndata: {voice_variants: 3, pitch_semitones: 0, stretch: 0}\n", 2, "data", "a variant would be a copy"),
}  # fmt: skip

# What is no sweep file, or hardly YAML. A line without a key: the text cannot be read from there on.
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + k, 98 + k, b",".join(9 * [b"*%c" % (97 + k)])) for k in range(6)
) + b"name: x\n"  # fmt: skip
FLOOD = b"name: x\n" + b"".join(b"k%04d: 1\n" % k for k in range(MAX_BYTES // 9 - 1))

BYTES: dict[str, tuple[bytes, int | None, str, str]] = {
    "empty": (b"", None, "", "the file is empty; `harness init` writes one"),
    "blank": (b"\n \n\n", None, "", "the file is empty"),
    "a comment": (b"# later\n", None, "", "the file is empty"),
    "a list": (b"- name: x\n", None, "", "the file is a list"),
    "a word": (b"name\n", None, "", "the file is a single value"),
    "an INI file": (b"name = x\nseed = 1\n", None, "", "the file is a single value"),
    "a TOML file": (b"[sweep]\nname = 'x'\n", 2, "", "not valid YAML"),
    "a page": (b"<!DOCTYPE html>\n<html></html>\n", None, "", "the file is a single value"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 1, "", "not UTF-8 text (byte 0)"),
    "every byte": (bytes(range(256)), 2, "", "not UTF-8 text (byte 128)"),
    "a zip file": (b"PK\x03\x04\n\0\0\0\0", 1, "", "holds the character U+0003"),
    "UTF-16": ("name: x\n".encode("utf-16"), 1, "", "save it as UTF-8"),
    "UTF-16 without a mark": ("name: x\n".encode("utf-16-le"), 1, "", "holds the character U+0000"),
    "Latin 1": ("seed: 1\nname: größe\n".encode("latin-1"), 2, "", "not UTF-8 text"),
    "NUL": (b"name: x\n\nseed: \0\n", 3, "", "holds the character U+0000"),
    "NUL in quotes": (b'name: x\ndescription: "a\\0b"\n', 2, "description", "no text file can hold"),
    "half a character": (b'name: x\ndescription: "\\ud800"\n', 2, "description", "no text file can hold"),
    "bell": (b"name: x\nseed: \x07\n", 2, "", "holds the character U+0007"),
    "tab": (b"name: x\nbudget:\n\ttrials: 3\n", 3, "", "not valid YAML"),
    "indented wrongly": (b"name: x\n seed: 1\n", 2, "", "not valid YAML"),
    "not closed": (b"name: x\ncontrols: [unseen\n", 3, "", "not valid YAML"),
    "quote not closed": (b"name: 'x\n", 2, "", "not valid YAML"),
    "merge conflict": (b"name: x\n<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> b\n", 3, "", "not valid YAML"),
    "a key twice": (b"name: x\nseed: 1\nseed: 2\n", 3, "seed", "stands twice, here and in line 2"),
    "a key twice, once quoted": (b"name: x\nseed: 1\n'seed': 2\n", 3, "seed", "stands twice"),
    "a key of lists": (b"name: x\n? [a, b]\n: 2\n", 2, "", "a key must be a plain name"),
    "alias": (b"name: x\ndata: &d {seed: 1}\nbudget: *d\n", 3, "budget", "the alias *d is not allowed: write it out"),
    "alias of itself": (b"name: x\ncontrols: &c [*c]\n", 2, "controls.0", "the alias *c"),
    "alias bomb": (BOMB, 2, "b.0", "the alias *a is not allowed"),
    "merge key of an alias": (b"name: x\ndata: &b {seed: 1}\n<<: *b\n", 3, "<<", "the alias *b is not allowed"),
    "tag": (b"name: !!str x\n", 1, "name", "the tag !!str is not allowed"),
    "tag that runs": (b"name: x\nseed: !!python/object/apply:os.system ['touch marker']\n", 2, "seed", "the tag !!python/object/apply:os.system"),
    "tag in disguise": (b"%TAG ! tag:yaml.org,2002:python/\n---\nname: x\nseed: !object/apply:os.system ['touch marker']\n", 4, "seed", "!!python/object/apply:os.system"),
    "another version": (b"%YAML 9.9\n---\nname: x\n", 1, "", "not valid YAML"),
    "YAML 1.1 asked for": (b"%YAML 1.1\n---\nname: x\nseed: yes\n", 4, "seed", 'must be a whole number; got "yes"'),
    "two documents": (b"name: x\n---\nname: y\n", 2, "", "a second document begins here"),
    "marks of byte order": (b"\xef\xbb\xbfname: x\r\nsed: 1\r\n", 2, "sed", "did you mean seed?"),
    "JSON": (b'{"name": "x",\n "sed": 1}', 2, "sed", "did you mean seed?"),
    "5000 brackets": (b"name: x\ndata: " + 5000 * b"[", 2, "data", "nested more than 20 levels deep"),
    "3000 braces": (b"name: x\ndata: " + 3000 * b"{a: ", 2, "data", "nested more than 20 levels deep"),
    "22 levels": (b"name: x\n" + b"".join(b"%s%s:\n" % (k * b" ", b"data") for k in range(22)), 23, "data", "nested more than 20"),
    "900 unknown keys": (FLOOD[: 8 + 900 * 9], 2, "k0000", "no such key"),
    "1800 unknown keys": (FLOOD, 1000, "k0998", "more than 1000 values"),
    "2000 times a key": (b"name: x\n" + 2000 * b"seed: 1\n", 3, "seed", "stands twice, here and in line 2"),
    "8000 items": (b"name: x\ncontrols: [" + 8000 * b"a,", 2, "controls", "more than 1000 values"),
    "a byte too many": (b"name: x\n" + (MAX_BYTES - 7) * b"#", None, "", f"more than {MAX_BYTES} bytes"),
}  # fmt: skip


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"name: x\n")
        file.truncate(100 * 2**20)


def _locked(path: Path) -> None:
    path.write_text("name: x\n")
    path.chmod(0)


# What stands in the file's place, made by a function; there is no line to be told.
PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda path: None, "no such file; did you mean"),
    "folder": (lambda path: path.mkdir(), "a folder; name a sweep file in it"),
    "pipe": (_pipe, "a pipe or a device; save the text in a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
    "link to nothing": (lambda path: path.symlink_to("nowhere.yaml"), "a link to nowhere.yaml, which leads to no file"),
    "link to itself": (lambda path: path.symlink_to(path.name), "which leads to no file"),
    "100 MB": (_huge, f"more than {MAX_BYTES} bytes"),
    "not permitted": (_locked, "cannot be read: Permission denied"),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A file as `make` puts it there, and what is said of it first."""

    name: str
    make: Callable[[Path], object]
    line: int | None
    where: str
    words: str
    only: bool = False  # nothing else is said

    @property
    def told(self) -> str:
        """How the first mistake begins."""
        line = f"line {self.line}: " if self.line is not None else ""
        return f"  {line}{self.where}: " if self.where else f"  {line}"


def _writing(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def cases() -> list[Case]:
    """Return all of them."""
    return [
        *(Case(n, _writing(t.encode()), line, key, words, True) for n, (t, line, key, words) in MALFORMED.items()),
        *(Case(n, _writing(content), line, key, words) for n, (content, line, key, words) in BYTES.items()),
        *(Case(n, make, None, "", words, True) for n, (make, words) in PLACES.items()),
    ]  # fmt: skip
