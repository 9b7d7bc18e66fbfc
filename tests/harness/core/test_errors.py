"""Every error has the exit code of its base class, and the one it had when that went by its name."""

import ast
import builtins
import importlib
import pickle
from pathlib import Path

import pytest

from harness.cli.exits import exit_code_of

ROOT = Path(__file__).parents[3]
FAILED = {
    "AlteredError", "ArtifactError", "ConfirmationFailedError", "DatabaseUnreadableError", "DvcError", "ExportError",
    "FailedError", "ModelFailedError", "OutOfSpaceError", "PromotionError", "ServerError", "WeightsError",
    "WorkersFailedError",
}  # fmt: skip
INPUT = {
    "AudioError", "BaselineError", "BrokenBundleError", "CheckpointError", "ConfirmationError",
    "DamagedCheckpointError", "DataError", "DeviceError", "DeviceRefusedError", "DivergedError", "EmbeddingError",
    "EnsembleError", "EvaluationError", "ExecutorError", "ForeignServerError", "InputError", "MetricsError", "MissingRuntimeError",
    "ModelError", "NoBundleError", "NotOnnxError", "OnnxFileError", "OpenServerError", "OutputError", "PatienceError",
    "PointerError", "PolicyError", "ProtocolError", "ProviderError", "QuantizeError", "RecordError", "ReportError",
    "RollbackError", "SizeError", "SpecificationError", "SplitError", "StackError", "StatisticsError", "StudyError",
    "SweepError", "TeamServerError", "TrackingError", "UsageError",
}  # fmt: skip
REFUSED = {
    "FrontEndsMissingError", "DataChangedError", "GateRefusedError", "GuardRefusedError", "RefusedError",
    "RestoreRefusedError", "SeenMeetingsError",
}  # fmt: skip
CODES = {name: code for code, names in enumerate((FAILED, INPUT, REFUSED), start=1) for name in names}
# No command ends with these; where one did, it would be a bug with its traceback.
INTERNAL = {
    "CaptureError",  # a worker ends with it, and another one tries the trial
    "EmptyDatabaseError",  # the record makes its database another way
    "FailpointError",  # of the fault tests
    "FieldError",  # becomes pydantic's ValidationError, and then a mistake of the file
    "HarnessError",  # the base, which is never raised
    "InterruptedTraining",  # a way out of a loop
    "Stopped",  # a KeyboardInterrupt, which has the code of its signal
    "UnreadableError",  # becomes a SweepError or a PolicyError
    "_TooMuchError",  # becomes a mistake of the file
}


def defined() -> dict[str, type[BaseException]]:
    """Every class of an exception in the three packages, found in the text and then imported."""
    homes: dict[str, str] = {}
    bases: dict[str, set[str]] = {}
    for path in (
        file for package in ("harness", "models", "data") for file in (ROOT / package).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes[node.name] = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                bases[node.name] = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
    found = {
        name
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, BaseException)
    }
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return {name: getattr(importlib.import_module(homes[name]), name) for name in sorted(found & set(homes))}


ERRORS = defined()


def test_the_table_names_what_there_is() -> None:
    assert set(ERRORS) == set(CODES) | INTERNAL


@pytest.mark.parametrize("name", sorted(CODES))
def test_an_error_has_its_code_by_its_base_class(name: str) -> None:
    kind = ERRORS[name]
    assert exit_code_of(kind.__new__(kind)) == CODES[name]  # type: ignore[arg-type]
    own = name in ("FailedError", "UsageError", "RefusedError", "ModelError", "ModelFailedError", "DataError")
    assert ("exit_code" in vars(kind)) == own


@pytest.mark.parametrize("name", sorted(INTERNAL - {"HarnessError", "Stopped"}))
def test_an_internal_error_is_a_bug(name: str) -> None:
    kind = ERRORS[name]
    assert exit_code_of(kind.__new__(kind)) is None  # type: ignore[arg-type]


def test_errors_are_caught_by_their_builtin_class_as_ever() -> None:
    runtime = FAILED - {"ExportError", "ModelFailedError", "FailedError", "OutOfSpaceError", "WeightsError"}
    runtime |= {"DeviceError", "DeviceRefusedError", "CaptureError", "EmptyDatabaseError", "FailpointError"}
    value = INPUT - {"DeviceError", "DeviceRefusedError", "UsageError"}
    value |= {
        "DataChangedError",
        "ExportError",
        "FieldError",
        "ModelFailedError",
        "RestoreRefusedError",
        "SeenMeetingsError",
    }
    value |= {"WeightsError"}
    for base, names in ((RuntimeError, runtime), (ValueError, value), (OSError, {"OutOfSpaceError"})):
        assert {name for name, kind in ERRORS.items() if issubclass(kind, base)} == names


@pytest.mark.parametrize(
    "name", ["OutOfSpaceError", "ServerError", "StudyError", "DataChangedError", "ExportError"]
)
def test_an_error_survives_the_way_out_of_a_process(name: str) -> None:
    again = pickle.loads(pickle.dumps(ERRORS[name]("why")))
    assert (type(again), str(again)) == (ERRORS[name], "why")


@pytest.mark.parametrize(
    ("name", "module", "code"),
    [
        ("MlflowException", "mlflow.exceptions", 1), ("ConnectionError", "requests.exceptions", 1),
        ("MlflowException", "elsewhere", None), ("PolicyError", "elsewhere", None), ("Other", "builtins", None),
    ],
)  # fmt: skip
def test_another_librarys_error_goes_by_its_name_and_module(name: str, module: str, code: int | None) -> None:
    assert exit_code_of(type(name, (ValueError,), {"__module__": module})("x")) == code


def test_an_exit_code_of_clicks_is_none_of_ours() -> None:
    click = pytest.importorskip("click")
    assert exit_code_of(click.exceptions.Exit(0)) is None
