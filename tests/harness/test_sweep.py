import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parameters import places
from harness.sweep import NAME, Sweep, load_sweep, slug
from harness.sweep_file import SweepError, read_sweep_file
from harness.sweep_schema import json_schema
from harness.yaml_values import parse_yaml

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))
SCHEMA = jsonschema.Draft202012Validator(json_schema())


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text, "utf-8")
    return path


def told(folder: Path, text: str, *overrides: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(SweepError) as caught:
        load_sweep(write(folder, text), overrides)
    return [(problem.line, problem.where, problem.message) for problem in caught.value.problems]


def parameters(text: str) -> str:
    """A file whose parameters begin in line 3."""
    return f"name: x\nparameters:\n  {text}\n"


MALFORMED = {
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
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "where", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_mistake_is_told_once_with_its_line_and_its_key(
    tmp_path: Path, text: str, line: int | None, where: str, message: str
) -> None:
    problems = told(tmp_path, text)
    assert [problem[:2] for problem in problems] == [(line, where)]
    assert message in problems[0][2]
    assert "\n" not in problems[0][2]
    assert len(problems[0][2]) < 300


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = (
        "name: a b\nsed: 1\ndata:\n  corpus: demo\n  subset: cleen\n  val_windows: 4000\n  taks: pseudo\n"
        "sampler: tpee\nparameters:\n  learning_rat: 1\n  width: 9\n  feature: [mfc, log_mel]\n"
        "  log_mel.n_mels: {int: [40, 30]}\n  epochs: {value: 3, when: {featur: mfcc}}\n"
        "budget: {trials: 0}\n"
    )
    assert [(line, where) for line, where, _ in told(tmp_path, text)] == [
        (1, "name"), (2, "sed"), (5, "data.subset"), (6, "data.val_windows"), (7, "data.taks"),
        (8, "sampler.type"), (10, "parameters.learning_rat"), (11, "parameters.width"),
        (12, "parameters.feature.0"), (13, "parameters.log_mel.n_mels"),
        (14, "parameters.epochs.when.featur"), (15, "budget.trials"),
    ]  # fmt: skip


def test_laws_of_several_values_use_the_values_of_the_file(tmp_path: Path) -> None:
    # 100 coefficients break a law with the default of 80 bands, but this file has 128 of them.
    text = parameters("mfcc.n_mfcc: 100\n  mfcc.n_mels: 128\n  mfcc.n_fft: 1024")
    assert load_sweep(write(tmp_path, text)).parameters["mfcc.n_mfcc"].candidates() == [100]


def test_a_condition_can_keep_values_apart_that_break_a_law(tmp_path: Path) -> None:
    text = parameters(
        "mfcc.n_mels: [80, 128]\n  mfcc.n_fft: 1024\n"
        "  mfcc.n_mfcc: {choice: [90, 100], when: {mfcc.n_mels: 128}}"
    )
    assert load_sweep(write(tmp_path, text))


@pytest.mark.parametrize("section", ["data", "parameters", "sampler", "pruner", "budget"])
def test_an_empty_section_means_its_defaults(tmp_path: Path, section: str) -> None:
    assert load_sweep(write(tmp_path, f"name: x\n{section}:\n")) == Sweep(name="x")


def test_null_is_a_value_where_a_field_has_one(tmp_path: Path) -> None:
    sweep = load_sweep(write(tmp_path, parameters("mfcc.top_db: [80, null]\n  mfcc.f_max: null")))
    assert sweep.parameters["mfcc.top_db"].candidates() == [80, None]


def test_the_short_forms_mean_the_long_ones(tmp_path: Path) -> None:
    short = "name: x\nsampler: random\npruner: none\nparameters: {epochs: 3, feature: [mfcc, log_mel]}\n"
    long = (
        "name: x\nsampler: {type: random}\npruner: {type: none}\n"
        "parameters: {epochs: {value: 3}, feature: {choice: [mfcc, log_mel]}}\n"
    )
    assert load_sweep(write(tmp_path, short)) == load_sweep(write(tmp_path, long))


# Overrides


def test_set_reaches_every_field(tmp_path: Path) -> None:
    sweep = load_sweep(
        write(tmp_path, "name: x\nsampler: tpe\nparameters:\n  feature: [mfcc, log_mel]\n"),
        [
            "parameters.mfcc.n_mfcc=20",
            "sampler.type=random",
            "data.val_windows=100",
            "name=2024",
            "budget.trials=3",
        ],
    )
    assert sweep.parameters["mfcc.n_mfcc"].candidates() == [20]
    assert (sweep.sampler.type, sweep.data.val_windows, sweep.name, sweep.budget.trials) == (
        "random",
        100,
        "2024",
        3,
    )


def test_a_mistake_in_set_is_told_without_a_line(tmp_path: Path) -> None:
    problems = told(
        tmp_path, "name: x\nseed: 1\n", "seed=-1", "parameters.feature=[mfc]", "sampler.type=grd", "a.b=1"
    )
    assert [(line, where) for line, where, _ in problems] == [
        (None, "--set parameters.feature"), (None, "--set sampler.type"), (None, "--set seed"), (None, "a"),
    ]  # fmt: skip


# What decides a study


BASE = "name: x\nparameters:\n  feature: [mfcc, log_mel]\n  width: {float: [0.5, 1]}\n"


@pytest.mark.parametrize(
    "change", ["name=y", "description=other", "budget.trials=7", "budget.hours=1", "workers=3"]
)
def test_a_budget_or_a_name_leaves_the_study_the_same(tmp_path: Path, change: str) -> None:
    path = write(tmp_path, BASE)
    assert load_sweep(path, [change]).digest() == load_sweep(path).digest()


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "data.seed=1",
        "sampler=random",
        "pruner.warmup_epochs=4",
        "parameters.epochs=3",
        "parameters.feature=[mfcc]",
    ],
)
def test_anything_else_makes_another_study(tmp_path: Path, change: str) -> None:
    path = write(tmp_path, BASE)
    assert load_sweep(path, [change]).digest() != load_sweep(path).digest()


def test_order_and_spelling_make_no_other_study(tmp_path: Path) -> None:
    same = (
        "parameters: {width: {float: [5e-1, 1.0]}, feature: {choice: [mfcc, log_mel]}}\nname: 'x'\nseed: 0\n"
    )
    assert load_sweep(write(tmp_path, same)).digest() == load_sweep(write(tmp_path, BASE)).digest()


def test_a_sweep_survives_the_study_that_stores_it(tmp_path: Path) -> None:
    text = parameters(
        "feature: [mfcc, log_mel]\n  mfcc.n_mfcc: {int: [10, 40], step: 10}\n  mfcc.top_db: [80, null]\n"
        "  width: {float: [0.1, 1], log: true, when: {feature: [mfcc]}}"
    )
    sweep = load_sweep(write(tmp_path, text))
    again = Sweep.model_validate(json.loads(sweep.model_dump_json(by_alias=True)))
    assert again == sweep
    assert again.digest() == sweep.digest()


@given(st.text(max_size=120))
def test_a_slug_is_a_name(text: str) -> None:
    assert NAME.fullmatch(slug(text))
    assert slug(slug(text)) == slug(text)


# What ships, and the schema


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_every_shipped_sweep_loads_and_satisfies_the_schema(path: Path) -> None:
    assert load_sweep(path).name == path.stem
    SCHEMA.validate(read_sweep_file(path).values)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_every_shipped_sweep_opens_with_its_command_and_what_to_expect(path: Path) -> None:
    head = path.read_text("utf-8").split("name:")[0]
    assert head.startswith(f"# harness sweep sweeps/{path.name}")
    assert "Expected:" in head


def test_there_are_sweeps() -> None:
    assert SWEEPS


def test_the_schema_is_one_and_describes_every_parameter() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert all(place.description for place in places().values())
    listed = next(one for one in json_schema()["properties"]["parameters"]["anyOf"] if "properties" in one)
    assert set(listed["properties"]) == set(places())


@pytest.mark.parametrize(
    "text",
    [
        "name: x\nparameters: {feature: [mfcc], mfcc.top_db: null}\nsampler: grid\ndata:\n",
        "name: x\ndata: {corpus: librispeech, subset: mine, parts: {mine: [test-other]}, evaluate_on: [mine]}\n",
        "name: x\nparameters: {width: {float: [1, 2], log: true, when: {feature: [mfcc, log_mel]}}, feature: [mfcc, log_mel]}\n",
        "name: x\nsampler: {type: random, startup_trials: 3}\npruner: none\nworkers: null\n",
    ],
)
def test_what_loads_satisfies_the_schema(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    assert load_sweep(path)
    SCHEMA.validate(read_sweep_file(path).values)


@pytest.mark.parametrize(
    "case",
    ["name missing", "name with a space", "unknown key", "seed a word", "section a number", "sampler unknown", "data key",
     "parameter unknown", "front end unknown", "no choice", "no form", "two forms", "form key", "condition empty"],
)  # fmt: skip
def test_an_editor_sees_the_same_mistakes(case: str) -> None:
    assert not SCHEMA.is_valid(parse_yaml(MALFORMED[case][0]).values)
