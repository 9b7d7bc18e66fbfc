"""What is wrong with an MLflow server, in a line for people, and whether the server is to blame at all."""

from __future__ import annotations

import re
from collections.abc import Iterator

from harness.core.errors import InputError
from harness.tracking.server.server import ServerError

NOT_MLFLOW = "what answers there is not an MLflow server"
CREDENTIALS = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
# MLflow's client hands on the words of the libraries below it; the first that is found says it.
_WORDS = (
    (r"database is locked", "its database is locked"),
    (r"CERTIFICATE_VERIFY_FAILED|SSLError", "its certificate is not trusted"),
    (r"NameResolution|Name or service not known|getaddrinfo|nodename nor servname", "its host is not known"),
    (r"Connection refused", "nothing listens at its address"),
    (r"timed? ?out", "no answer in time"),
    (r"too many (\d+) error responses", r"it answers HTTP \1"),
    (r"not in a valid JSON|InvalidSchema|BadStatusLine", NOT_MLFLOW),
    (r"RemoteDisconnected|Connection aborted|Connection reset|IncompleteRead", "the connection breaks off"),
)
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST")
_DENIALS = {"UNAUTHENTICATED": 401, "CUSTOMER_UNAUTHORIZED": 401, "PERMISSION_DENIED": 403}
# Of the answers 4xx these may be others the next time, whatever was asked.
_OF_THE_SERVER = (401, 403, 404, 405, 408, 429)
MAX_WORDS = 300


class TrackingError(InputError):
    """MLflow cannot hold this study as it is: its names are taken by studies of other records."""


class ForeignServerError(InputError):
    """What answers at the address of an MLflow server is something else."""


def describe_error(error: BaseException) -> str:
    """What is wrong, in one line; it names no address, which may carry a password."""
    status = _status(error)
    if status in (401, 403):
        return f"it does not let us in (HTTP {status}): {CREDENTIALS}"
    if _is_foreign(error):
        return NOT_MLFLOW
    if status is not None:
        return f"it answers HTTP {status}"
    words = " ".join(f"{type(one).__name__}: {one}" for one in _causes(error))
    for pattern, meaning in _WORDS:
        if found := re.search(pattern, words):
            return found.expand(meaning)
    lines = str(error).strip().splitlines()
    known = isinstance(error, ServerError | TrackingError) or hasattr(error, "error_code")
    text = (lines or [""])[0] if known else f"{type(error).__name__}: {(lines or [''])[0]}"
    return re.sub(r"://[^/\s]*@", "://", text)[:MAX_WORDS]


def is_server_error(error: BaseException) -> bool:
    """Whether trying again later may help: the server is away, ill or another one.

    Else it refuses what it was sent (or there is a bug of ours), and will do so again.
    """
    status = _status(error)
    if status is not None:
        return status >= 500 or status in _OF_THE_SERVER
    code = getattr(error, "error_code", None)
    if code is not None:
        return code not in _REFUSALS
    # requests' errors are OSErrors
    return isinstance(error, OSError | ServerError | TrackingError | ForeignServerError)


def _status(error: BaseException) -> int | None:
    """The HTTP status of a plain answer (an uploaded file's), or of one that denies."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return int(status) if status else _DENIALS.get(getattr(error, "error_code", ""))


def _is_foreign(error: BaseException) -> bool:
    if isinstance(error, ForeignServerError) or getattr(error, "error_code", None) == "ENDPOINT_NOT_FOUND":
        return True
    answer = getattr(error, "json", None)  # of MLflow's RestException; its servers always give a code
    return isinstance(answer, dict) and "error_code" not in answer


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
