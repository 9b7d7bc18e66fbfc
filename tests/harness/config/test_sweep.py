import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.files.sweep_loader import load_sweep, read_sweep_file
from harness.config.files.yaml_file import SweepError
from harness.config.files.yaml_reader import parse_yaml
from harness.config.json_schema import json_schema
from harness.config.parameters import parameter_locations
from harness.config.sweep import NAME, Sweep, slug
from tests.faults.bad_sweeps import MALFORMED, parameters

SWEEPS = sorted((Path(__file__).parents[3] / "sweeps").glob("*.yaml"))
SCHEMA = jsonschema.Draft202012Validator(json_schema())


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(text, "utf-8")
    return path


def told(folder: Path, text: str, *overrides: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(SweepError) as caught:
        load_sweep(write(folder, text), overrides)
    return [(problem.line, problem.where, problem.message) for problem in caught.value.problems]


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
    "change",
    ["name=y", "description=other", "budget.trials=7", "budget.hours=1", "workers=3", "pruner.patience=5"],
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
        "pruner=patient",
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
    assert all(place.description for place in parameter_locations().values())
    listed = next(one for one in json_schema()["properties"]["parameters"]["anyOf"] if "properties" in one)
    assert set(listed["properties"]) == set(parameter_locations())


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
