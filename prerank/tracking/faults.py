"""What a store of MLflow raises: an outage that may pass, a refusal that will not, and either in one line."""

import re
import socket
import sqlite3

OLD_SCHEMA = "out-of-date database schema"
BUSY = ("TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED")
DENIED = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")


def is_fault(error: BaseException) -> bool:
    """Whether it is of what a store that is asked for something may raise."""
    import requests  # late, as below: MLflow's client and what it stands on are imported where a store is asked
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    of_clients = (MlflowException, sqlalchemy.exc.SQLAlchemyError, requests.RequestException)
    return isinstance(error, (*of_clients, sqlite3.Error, UnicodeError))


def is_down(error: BaseException) -> bool:
    """Whether the store does not answer, is overloaded or locked: the same call may succeed later."""
    import requests
    import sqlalchemy.exc

    code, seen = getattr(error, "error_code", None), error
    if code not in (None, "INTERNAL_ERROR", *BUSY):
        return False
    while seen is not None:
        if isinstance(seen, ConnectionError | TimeoutError | socket.gaierror):
            return True
        if isinstance(seen, sqlite3.OperationalError):
            return "is locked" in str(seen)
        if isinstance(seen, requests.HTTPError) and seen.response is not None:
            return seen.response.status_code >= 500 or seen.response.status_code in (408, 429)
        if isinstance(seen, requests.RequestException):
            return not isinstance(seen, ValueError)  # as an address without a scheme
        if isinstance(seen, sqlalchemy.exc.OperationalError):
            return "sqlite3" not in str(seen) or "is locked" in str(seen)
        seen = seen.__cause__ or seen.__context__
    return code in BUSY


def is_refusal(error: BaseException) -> bool:
    """Whether a store that is up will not take this one entry, today or tomorrow."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    denied = status in (401, 403) or getattr(error, "error_code", None) in DENIED
    return not denied and (not is_down(error) or "too many 500 error" in str(error))


def explained(uri: str, error: Exception) -> str:
    """A fault of the store that no later call will mend, in one line with what to do."""
    if OLD_SCHEMA in str(error):
        return (
            f"MLflow at {masked(uri)}: its tables are of another version of MLflow: back them up and run `mlflow db "
            f"upgrade {masked(uri)}`, or, where a newer MLflow made them, install that one"
        )
    return f"MLflow at {masked(uri)}: {one_line(error)}; mend it, or set MLFLOW_TRACKING_URI to another store"


def one_line(error: Exception) -> str:
    return " ".join(masked(str(error)).split("(Background on")[0].split())[:300]


def masked(text: str) -> str:
    """The text without the secrets of the addresses in it."""
    text = re.sub(r"(?<=://)[^/\s]*@", "***@", text)
    return re.sub(r"(?i)\b(password|token)=[^&\s'\"]+", r"\1=***", text)
