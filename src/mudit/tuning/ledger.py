"""Who does which run: a queue in an Optuna study, as one of the commands that work on it sees it.

A trial of the Optuna study is one attempt at a run: WAITING to be taken, RUNNING with an owner that
beats, COMPLETE, or FAIL when it was given back. What has become of a run is said by the
`trial.json` in its folder and by nothing else; the storage only schedules.
"""

from __future__ import annotations

import fcntl
import math
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mudit.errors import EnvironmentFailure, FolderBusyError
from mudit.files import disk_errors
from mudit.records import TrialRecord
from mudit.training import exclusive, read_trial
from mudit.tuning.jobs import JobSource
from mudit.tuning.pool import Job

if TYPE_CHECKING:
    import optuna

# Of each HP that differs: lowest and highest value, and whether its scale is logarithmic.
Bounds: TypeAlias = Mapping[str, tuple[float, float, bool]]

BEAT_SECONDS = 8.0
# An owner on another machine that has not beaten for so long is gone.
GRACE_SECONDS = 30.0
# A run that has killed its worker so often is given up.
MOST_LOSSES = 3
# How long a file system over a network may hide a file that another machine has written.
VISIBLE_SECONDS = 90.0

_OWNERS = ".owners"


def distributions(bounds: Bounds) -> dict[str, optuna.distributions.BaseDistribution]:
    """The bounds as Optuna knows them; points are enqueued, so nothing else matters."""
    from optuna.distributions import FloatDistribution

    return {
        name: FloatDistribution(low, high, log=log) for name, (low, high, log) in bounds.items()
    }


class Ledger:
    """The queue as this command sees it.

    Every method may raise what the storage raises, and may then be called again.

    Args:
        study: The Optuna study.
        source: The runs.
        bounds: Of the HPs in their points.
        folder: The study's; all commands see it.
        owner: This command, from `ownership`.
    """

    def __init__(
        self,
        study: optuna.Study,
        source: JobSource,
        *,
        bounds: Bounds,
        folder: Path,
        owner: str,
    ) -> None:
        self._study = study
        self._source = source
        self._jobs = {job.key: job for job in source.known()}
        self._bounds = bounds
        self._folder = folder
        self._owner = owner
        self._held: dict[str, optuna.Trial] = {}
        self._finished: set[str] = set()
        self._beats = 0
        # By trial: its owner's last beat and when this command saw it change.
        self._seen: dict[int, tuple[object, float]] = {}
        self._complete: dict[str, float] = {}
        self._entered = False

    # --- what is left ------------------------------------------------------------------------

    def is_finished(self, ended: Set[str]) -> bool:
        """Whether there is nothing left to do, and will not be.

        Args:
            ended: Keys of runs that are known to have ended, whatever is seen of their folders.
        """
        return self._source.is_complete and not self.unfinished() - ended

    def unfinished(self) -> set[str]:
        """Keys of the runs that have not ended."""
        for key in self._jobs.keys() - self._finished:
            if self._jobs[key].ended is not None:
                self._finished.add(key)
        return set(self._jobs) - self._finished

    def settle(self) -> bool:
        """Give back what lost its owner, and make sure that each unfinished run is in the queue.

        Runs that other commands have proposed meanwhile become known.

        One command at a time does so. A run is enqueued once: all commands that enqueue hold the
        folder, and whoever does sees what the others have enqueued.

        Returns:
            Whether it was done; not if another command is at it.

        Raises:
            EnvironmentFailure: A run has killed its workers too often.
        """
        try:
            with exclusive(self._folder, wait_seconds=0.0 if self._entered else 1.0):
                self._settle()
        except FolderBusyError:
            return False
        self._entered = True
        return True

    def _settle(self) -> None:
        from optuna.trial import TrialState

        self._learn()
        queued: set[str] = set()
        latest: dict[str, optuna.trial.FrozenTrial] = {}
        for trial in self._study.get_trials(deepcopy=False):
            key: str = trial.user_attrs.get("key", "")
            if trial.state == TrialState.RUNNING and self._is_gone(trial):
                self._bury(trial)
            elif trial.state in (TrialState.RUNNING, TrialState.WAITING):
                queued.add(key)
            latest[key] = trial
        # After the trials have been read: a run's end is in its folder before it is in the storage.
        unfinished = self.unfinished()
        for key, job in self._jobs.items():
            if key in queued or key not in unfinished:
                continue
            losses = 0
            if (last := latest.get(key)) is not None and self._entered:
                if last.state == TrialState.COMPLETE and self._may_be_hidden(key):
                    continue
                losses = last.user_attrs.get("losses", 0)
            if losses >= MOST_LOSSES:
                raise EnvironmentFailure(
                    f"a worker process was killed {losses} times at {key}, probably because memory "
                    "ran out. Use fewer (--workers 1) and repeat the command: what was "
                    "checkpointed goes on."
                )
            self._study.enqueue_trial(job.point, user_attrs={"key": key, "losses": losses})

    def _learn(self) -> None:
        for job in self._source.known():
            self._jobs.setdefault(job.key, job)

    def _bury(self, trial: optuna.trial.FrozenTrial) -> None:
        """End a trial whose owner is gone; its run may have ended all the same."""
        from optuna.trial import TrialState

        job = self._jobs.get(trial.user_attrs.get("key", ""))
        if job is not None and (path := job.ended) is not None:
            self._end(trial.number, TrialState.COMPLETE, _value(read_trial(path)))
        else:
            self._end(trial.number, TrialState.FAIL)

    def _may_be_hidden(self, key: str) -> bool:
        """Whether a run that another machine has finished may just not be seen here yet."""
        since = self._complete.setdefault(key, time.monotonic())
        return time.monotonic() - since < VISIBLE_SECONDS

    def _is_gone(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether the owner of a running trial is no more.

        Silence is measured by this command's own clock and only while the storage answers, so
        neither clocks that differ nor an outage that silenced everybody make an owner seem gone.
        """
        owner, beat = trial.user_attrs.get("owner"), trial.user_attrs.get("beat")
        if owner == self._owner:
            return trial.user_attrs.get("key") not in self._held
        if owner is not None and (alive := is_alive(self._folder, owner)) is not None:
            return not alive
        now = time.monotonic()
        seen, since = self._seen.get(trial.number, (None, now))
        if seen != (owner, beat):
            self._seen[trial.number] = ((owner, beat), now)
            return False
        return now - since > GRACE_SECONDS

    def forget_silence(self) -> None:
        """Begin again to wait for beats: the storage was away, and nobody could beat."""
        self._seen.clear()

    # --- this command's runs -----------------------------------------------------------------

    def take(self) -> Job | None:
        """A waiting run, now this command's, or one more of the source's; None if there is none."""
        job = self._take_waiting()
        while job is None and not self._source.is_complete:
            try:
                with exclusive(self._folder):
                    self._learn()
                    more = self._source.another()
                    if more is None:
                        break
                    self._jobs[more.key] = more
                    self._study.enqueue_trial(more.point, user_attrs={"key": more.key})
            except FolderBusyError:
                break
            job = self._take_waiting()
        return job

    def _take_waiting(self) -> Job | None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import Trial, TrialState

        states = (TrialState.WAITING, TrialState.RUNNING)
        trials = self._study.get_trials(deepcopy=False, states=states)
        running = {
            trial.user_attrs.get("key") for trial in trials if trial.state == TrialState.RUNNING
        }
        for frozen in trials:
            job = self._jobs.get(frozen.user_attrs.get("key", ""))
            if frozen.state != TrialState.WAITING or job is None or job.key in running:
                continue
            # Not `study.ask`: with nothing waiting any more, it would make up a new trial.
            try:
                if not self._study._storage.set_trial_state_values(
                    frozen._trial_id, TrialState.RUNNING
                ):
                    continue
            except UpdateFinishedTrialError:
                continue
            trial = Trial(self._study, frozen._trial_id)
            trial.set_user_attr("owner", self._owner)
            for name, (low, high, log) in self._bounds.items():
                trial.suggest_float(name, low, high, log=log)
            self._held[job.key] = trial
            if (path := job.ended) is not None:
                self.finish(read_trial(path))
                continue
            return job
        return None

    def beat(self) -> bool:
        """Say that this command is alive and at work on its runs."""
        from optuna.exceptions import UpdateFinishedTrialError

        self._beats += 1
        for trial in self._held.values():
            # It may have been given to another command, which finds the folder busy or finished.
            with suppress(UpdateFinishedTrialError):
                trial.set_user_attr("beat", self._beats)
        return True

    def finish(self, record: TrialRecord) -> bool:
        """Tell how a run ended."""
        from optuna.trial import TrialState

        self._finished.add(record.key)
        if (trial := self._held.get(record.key)) is not None:
            self._end(trial.number, TrialState.COMPLETE, _value(record))
            del self._held[record.key]
        return True

    def give_back(self, key: str, *, lost: bool = False) -> bool:
        """Put a run back; `settle` enqueues it again.

        Args:
            key: The run's.
            lost: Whether its worker was killed.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        if (trial := self._held.get(key)) is not None:
            if lost:
                with suppress(UpdateFinishedTrialError):
                    trial.set_user_attr("losses", trial.user_attrs.get("losses", 0) + 1)
            self._end(trial.number, TrialState.FAIL)
            del self._held[key]
        return True

    def _end(self, number: int, state: optuna.trial.TrialState, value: float | None = None) -> None:
        """End a trial; not if it has ended, by another command or before an outage."""
        from optuna.exceptions import UpdateFinishedTrialError

        with suppress(UpdateFinishedTrialError):
            self._study.tell(number, value, state=state, skip_if_finished=True)


def _value(record: TrialRecord) -> float:
    """What Optuna is told: a diverged run is infinitely bad, not failed."""
    return math.inf if record.score is None else record.score


# --- who is there ---------------------------------------------------------------------------------


@contextmanager
def ownership(folder: Path) -> Iterator[str]:
    """A name for this command, as long as it lives.

    It holds a file's lock meanwhile, which the system takes away when the process ends, however
    that happens: on the same machine, a command that was killed is seen to be gone at once.
    """
    boot, name = _boot_id(), uuid.uuid4().hex[:12]
    path = folder / _OWNERS / name
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield f"{socket.gethostname()}:{os.getpid()}:{boot}:{name}"
        finally:
            path.unlink(missing_ok=True)


def is_alive(folder: Path, owner: str) -> bool | None:
    """Whether a command is; None if that cannot be seen from this machine.

    Only locks of the same kernel are believed: some file systems keep them to one machine.
    """
    _, _, boot, name = owner.rsplit(":", 3)
    if not boot or boot != _boot_id():
        return None
    path = folder / _OWNERS / name
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _boot_id() -> str:
    """Of the running kernel; empty where there is none (not Linux)."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text(encoding="ascii").strip()[:8] if path.exists() else ""
