"""The database in which commands agree on who does which run: Optuna's storage, and its outages."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mudit.errors import EnvironmentFailure, Interrupted, UsageError

if TYPE_CHECKING:
    import optuna
    import sqlalchemy

T = TypeVar("T")

_FILE = "optuna.db"

# How long a command waits for a storage that does not answer, in seconds.
PATIENCE_SECONDS = 600.0

# A statement that hangs must not hold up the command: it reads its workers' messages as well.
_SQLITE_TIMEOUT_SECONDS = 10
_POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # ms
}


# --- what a user gives ----------------------------------------------------------------------------


def shown_storage(storage: str) -> str:
    """A storage's URL without what is secret."""
    return _shown(_parsed(storage))


def check_storage(storage: str) -> None:
    """Make sure that a storage can be used; writes nothing.

    Args:
        storage: A URL; empty: SQLite in the study's folder, which is made with it.

    Raises:
        UsageError: It is not the URL of a database that many processes can use.
        EnvironmentFailure: The database does not answer, or its driver is not installed.
    """
    if not storage:
        return
    from sqlalchemy.exc import SQLAlchemyError

    url = _parsed(storage)
    if url.get_backend_name() == "sqlite":
        _check_file(url)
        return
    engine = _engine(url)
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        raise EnvironmentFailure(
            f"the storage {_shown(url)} does not answer: {_reason(error, url)}. Start the "
            "database, or correct --storage; nothing has been written."
        ) from None
    finally:
        engine.dispose()


def _parsed(storage: str) -> sqlalchemy.URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        # The text is not repeated: it may hold a password.
        raise UsageError(
            "--storage is not a URL. Expected one like postgresql://user@host:5432/database or "
            "sqlite:////path/to/file.db."
        ) from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError(
            "--storage is SQLite in memory, which no other process sees. Leave it away for a file "
            "in the study's folder, or give one: sqlite:////path/to/file.db."
        )
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    return url


def _shown(url: sqlalchemy.URL) -> str:
    """Without the password and the query, which may hold one too."""
    return url.set(query={}).render_as_string(hide_password=True)


def _reason(error: BaseException, url: sqlalchemy.URL) -> str:
    text = (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]
    return text.replace(str(url.password), "***") if url.password else text


def _check_file(url: sqlalchemy.URL) -> None:
    path = Path(str(url.database))
    if not path.parent.is_dir():
        raise EnvironmentFailure(
            f"the folder of the storage {path} does not exist. Make it, or correct --storage; "
            "nothing has been written."
        )
    if path.exists():
        try:
            with path.open("rb") as file:
                head = file.read(16)
        except OSError as error:
            raise EnvironmentFailure(
                f"the storage {path} cannot be read: {error.strerror}. Nothing has been written."
            ) from None
        if head and head != b"SQLite format 3\0":
            raise EnvironmentFailure(
                f"the storage {path} is not an SQLite file. Choose another name; nothing has been "
                "written."
            )


# --- engines and studies --------------------------------------------------------------------------


def _engine(url: sqlalchemy.URL) -> sqlalchemy.Engine:
    import sqlalchemy
    from sqlalchemy.exc import NoSuchModuleError

    try:
        return sqlalchemy.create_engine(url, **_engine_options(url))
    except NoSuchModuleError:
        raise UsageError(
            f"--storage names a database {url.drivername!r} that SQLAlchemy does not know; "
            "expected postgresql:// or sqlite:///."
        ) from None
    except ImportError as error:
        hint = "pip install 'mudit[cluster]'" if "psycopg" in str(error) else "install it"
        raise EnvironmentFailure(
            f"the storage {_shown(url)} needs a driver that is not installed ({error}): {hint}."
        ) from None


def _engine_options(url: sqlalchemy.URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _SQLITE_TIMEOUT_SECONDS}}
    options: dict[str, Any] = {"pool_pre_ping": True}  # finds what a restarted server has closed
    if url.drivername.startswith("postgresql+psycopg"):
        options["connect_args"] = {k: v for k, v in _POSTGRESQL.items() if k not in url.query}
    return options


def storage_url(folder: Path, storage: str) -> sqlalchemy.URL:
    """The URL of a storage; empty: SQLite in a study's folder."""
    import sqlalchemy

    if storage:
        return _parsed(storage)
    return sqlalchemy.URL.create("sqlite", database=str((folder / _FILE).resolve()))


def open_study(folder: Path, name: str, storage: str = "") -> optuna.Study:
    """An Optuna study, made if absent.

    Taking a waiting trial is atomic in it. PostgreSQL locks the row (`SELECT ... FOR UPDATE`);
    SQLite has no such lock, and of two processes that read `WAITING` both would write `RUNNING`,
    so there each transaction takes the write lock when it begins. (Without that, six processes
    that emptied a queue of 60 trials took 30 of them twice; Optuna 5.0.)

    Args:
        folder: The study's.
        name: The Optuna study's.
        storage: Its URL; empty: SQLite in the folder.
    """
    import optuna
    from optuna.exceptions import StorageInternalError
    from sqlalchemy import event
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = storage_url(folder, storage)
    # Optuna fills a template of its own into braces.
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    for attempt in range(10):
        try:
            rdb = optuna.storages.RDBStorage(text, engine_kwargs=_engine_options(url))
            break
        except (StorageInternalError, SQLAlchemyError) as error:
            # Two that make the tables of a new database at once: one finds them there already.
            if attempt == 9 or is_away(error):
                raise
            time.sleep(0.1 + 0.2 * random.random())
    if url.get_backend_name() == "sqlite":
        event.listen(rdb.engine, "begin", lambda made: made.exec_driver_sql("BEGIN IMMEDIATE"))
    return optuna.create_study(
        storage=rdb, study_name=name, direction="minimize", load_if_exists=True
    )


def close_study(study: optuna.Study) -> None:
    """Close the connections of a study that `open_study` has opened."""
    import optuna

    storage = study._storage
    if isinstance(storage, optuna.storages._CachedStorage):
        storage._backend.engine.dispose()


# --- outages --------------------------------------------------------------------------------------


def is_away(error: BaseException) -> bool:
    """Whether an error means that the storage may answer again by itself."""
    from sqlalchemy.exc import (
        DBAPIError,
        InterfaceError,
        OperationalError,
        PendingRollbackError,
        TimeoutError,
    )

    if not isinstance(error, DBAPIError | TimeoutError) and error.__cause__ is not None:
        error = error.__cause__  # Optuna wraps SQLAlchemy's errors
    if isinstance(error, DBAPIError) and type(error.orig).__module__.startswith("sqlite3"):
        return any(word in str(error.orig) for word in ("locked", "busy", "unable to open"))
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    # Optuna asks again within the transaction that was cut off, which is then still pending.
    return isinstance(
        error, OperationalError | InterfaceError | TimeoutError | PendingRollbackError
    )


@contextmanager
def storage_errors(url: sqlalchemy.URL) -> Iterator[None]:
    """Turn a storage's errors into one that says what to do."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        where = url.database if url.get_backend_name() == "sqlite" else _shown(url)
        raise EnvironmentFailure(
            f"the search's storage {where} failed: {_reason(cause or error, url)}. If the disk is "
            "full, make room and repeat the command; if the storage is damaged, delete it: "
            "finished trials are kept in their own folders and are not run again."
        ) from error


class Outage:
    """Asks a storage, and asks again later if it is away.

    Args:
        url: The storage.
        on_notice: Told once when it is away, and once when it is back.
        patience_seconds: How long it may be away.
    """

    def __init__(
        self,
        url: sqlalchemy.URL,
        on_notice: Callable[[str], None],
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._url = url
        self._notice = on_notice
        self._patience = patience_seconds
        self._since: float | None = None
        self._told = False
        self._pause = 0.0
        self._again = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the storage is away."""
        return self._since is not None

    def ask(self, action: Callable[[], T]) -> T | None:
        """What the action returns; None if the storage is away or is not to be asked yet.

        Raises:
            EnvironmentFailure: It has been away for too long.
        """
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import SQLAlchemyError

        if time.monotonic() < self._again:
            return None
        try:
            answer = action()
        except (StorageInternalError, SQLAlchemyError) as error:
            if not is_away(error):
                raise
            self._failed(error)
            return None
        if self._told:
            self._notice("the storage answers again")
        self._since, self._told, self._pause, self._again = None, False, 0.0, 0.0
        return answer

    def wait_for(self, action: Callable[[], T], should_stop: Callable[[], bool]) -> T:
        """What the action returns, once the storage answers.

        Raises:
            EnvironmentFailure: It has been away for too long.
            Interrupted: `should_stop` said so.
        """
        while (answer := self.ask(action)) is None:
            if should_stop():
                raise Interrupted("stopped while the storage did not answer. Repeat the command.")
            time.sleep(0.05)
        return answer

    def _failed(self, error: BaseException) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif not self._told:  # a second time: more than a hiccup
            self._told = True
            self._notice(f"the storage {_shown(self._url)} does not answer; waiting")
        if now - self._since > self._patience:
            cause = error.__cause__ or error
            raise EnvironmentFailure(
                f"the storage {_shown(self._url)} has not answered for "
                f"{self._patience / 60:.0f} minutes: {_reason(cause, self._url)}. All runs are "
                "saved; start the database and repeat the command to go on."
            ) from error
        self._pause = min(max(2 * self._pause, 0.25), 5.0)
        self._again = time.monotonic() + self._pause
