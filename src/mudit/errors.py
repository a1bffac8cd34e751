"""Every exception that mudit raises on purpose.

    MuditError                      anything below; `exit_code` is the command line's
    ├── UsageError (ValueError)     2  a wrong key, value or combination of options
    │   ├── ConfigMismatchError        a study folder that another config made
    │   └── FolderBusyError            a folder that another process works in
    ├── ParametrizationError (ValueError)
    │   │                           2  a plan that cannot be made, or does not fit
    │   └── GroupRatioError            an optimizer whose groups have left the plan
    ├── DataError (ValueError)      3  missing, empty, truncated or unreadable data
    │   └── BrokenImageError           an image that is there and cannot be decoded
    ├── EnvironmentFailure (OSError)
    │                               3  no space left, missing extra, damaged checkpoint
    └── Interrupted                130  asked to stop; everything is saved

A message is one paragraph: what is wrong, where, what was expected, how to fix it.
"""

from __future__ import annotations


class MuditError(Exception):
    """Base of all errors that a user can cause and fix."""

    exit_code = 2


class UsageError(MuditError, ValueError):
    """A wrong key, value or combination of options."""


class ConfigMismatchError(UsageError):
    """A study or trial folder belongs to a different config."""


class FolderBusyError(UsageError):
    """Another process holds a folder."""


class ParametrizationError(MuditError, ValueError):
    """A plan cannot be made for this model, or does not fit what it is applied to."""


class GroupRatioError(ParametrizationError):
    """The optimizer's groups no longer have the ratios that the plan asks for."""


class DataError(MuditError, ValueError):
    """Missing, empty, truncated or unreadable data; the message names the file."""

    exit_code = 3


class BrokenImageError(DataError):
    """An image that is there and cannot be decoded.

    Attributes:
        name: What it is called.
        why: What is wrong with it, the same whenever it is read.
    """

    def __init__(self, message: str, name: str = "", why: str = "") -> None:
        super().__init__(message)
        self.name, self.why = name, why


class EnvironmentFailure(MuditError, OSError):
    """The machine, not the request: disk full, missing extra, damaged checkpoint."""

    exit_code = 3


class Interrupted(MuditError):
    """The run was asked to stop (Ctrl-C); its state is saved and the same command resumes it."""

    exit_code = 130
