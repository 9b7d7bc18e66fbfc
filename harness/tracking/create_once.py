"""Things that an MLflow server must make once, though an answer may get lost after the commit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

ATTEMPTS = 3
PAUSE_S = 0.5
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"

Made = TypeVar("Made")


def create_once(create: Callable[[], Made], find: Callable[[], Made | None]) -> Made:
    """Create a thing; where no answer came, look whether it is there before it is created again.

    MLflow's client repeats a request whose answer it did not get, also one that creates something, which
    then stands there twice: here it may not. `find` is called only after a request without an answer.

    Raises
    ------
    MlflowException
        It was refused (an answer below 500), or ATTEMPTS attempts got no answer.
    """
    from mlflow.exceptions import MlflowException, RestException

    for attempt in range(ATTEMPTS):
        try:
            with without_http_retries():
                return create()
        except MlflowException as error:
            refused = isinstance(error, RestException) and error.get_http_status_code() < 500
            if refused or attempt == ATTEMPTS - 1:
                raise
        found = find()
        if found is not None:
            return found
        time.sleep(PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


@contextmanager
def without_http_retries() -> Iterator[None]:
    """MLflow's client sends each request of this block once (it reads the setting at each request).

    A setting of the process: requests of other threads are not repeated meanwhile either.
    """
    before = os.environ.get(RETRIES)
    os.environ[RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(RETRIES, None)
        else:
            os.environ[RETRIES] = before
