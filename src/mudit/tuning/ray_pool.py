"""Training runs as tasks on a Ray cluster."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from mudit.errors import EnvironmentFailure, Interrupted, UsageError
from mudit.tuning.cluster import RayConfig
from mudit.tuning.pool import Event, Job, Lost, Raised, Ticked, Work, do_job

# How often a task asks whether to stop, in seconds: a message to the mailbox.
_ASK_SECONDS = 0.5


@contextmanager
def connected_ray(config: RayConfig) -> Iterator[None]:
    """A connection to a Ray cluster that can do a run; one that is there already is used.

    Raises:
        EnvironmentFailure: Ray is not installed, there is no cluster, or none of its machines has
            what a run needs.
    """
    ray = _ray()
    if ray.is_initialized():
        _require_resources(ray, config)
        yield
        return
    _connect(ray, config)
    try:
        _require_resources(ray, config)
        yield
    finally:
        ray.shutdown()


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise EnvironmentFailure(
            "--launcher ray needs Ray, which is not installed: pip install 'mudit[cluster]'."
        ) from None
    return ray


def _connect(ray: ModuleType, config: RayConfig) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    # Zero GPUs asked for means none seen; Ray announces that this will be its default.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = config.address or os.environ.get("RAY_ADDRESS", "")
    if ":" in address:
        _require_answer(address)
    try:
        ray.init(
            address=config.address or None,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise EnvironmentFailure(
            f"cannot use the Ray cluster at {address or 'this machine'}: {reason}. Is it there, in "
            "the same version, and if it asks for a token, is RAY_AUTH_MODE=token set? Start one "
            "(`ray start --head`), or correct --ray.address; nothing has been written."
        ) from None


def _require_answer(address: str) -> None:
    """Ray itself tries for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        raise UsageError(f"ray.address is {address!r}, expected one like 10.0.0.1:6379.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise EnvironmentFailure(
            f"there is no Ray cluster at {address}: {error}. Start one (`ray start --head`), or "
            "correct --ray.address; nothing has been written."
        ) from None


def _require_resources(ray: ModuleType, config: RayConfig) -> None:
    machines = [
        (node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]
    if not any(
        cpus >= config.cpus_per_trial and gpus >= config.gpus_per_trial for cpus, gpus in machines
    ):
        has = "; ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in machines)
        raise EnvironmentFailure(
            f"a run needs {config.cpus_per_trial:g} CPUs and {config.gpus_per_trial:g} GPUs on one "
            f"machine, and no machine of the Ray cluster has them: {has or 'it has none'}. Lower "
            "--ray.cpus_per_trial or --ray.gpus_per_trial, or start Ray on machines that have "
            "them; nothing has been written."
        )


class _Mailbox:
    """An actor between the command and its tasks: what they report, and whether to stop."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = False
        self._begun: set[str] = set()

    def expect(self, key: str) -> None:
        self._begun.discard(key)

    def begin(self, key: str) -> bool:
        """Returns whether to stop before it begins."""
        self._begun.add(key)
        return self._stop

    def post(self, event: Event) -> bool:
        """Returns whether to stop."""
        self._events.append(event)
        return self._stop

    def must_stop(self) -> bool:
        return self._stop

    def collect(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def stop(self) -> set[str]:
        """Returns the keys of the tasks that have begun."""
        self._stop = True
        return self._begun


class RayPool:
    """Tasks on a Ray cluster that `connected_ray` has connected.

    A task whose worker dies is lost, as a local worker's run is: Ray does not repeat it.

    Args:
        config: What a task occupies.
        workers: Tasks handed to Ray at once; it starts them as it has room.
        work: What they do.
    """

    def __init__(self, config: RayConfig, workers: int, work: Work) -> None:
        self._ray = _ray()
        self._most = workers
        self._work = work
        self._mailbox = self._ray.remote(_Mailbox).options(num_cpus=0).remote()
        self._task = self._ray.remote(_do_on_ray).options(
            num_cpus=config.cpus_per_trial, num_gpus=config.gpus_per_trial, max_retries=0
        )
        self._keys: dict[Any, str] = {}  # by the reference to a task's result
        self._mail: Any = None

    @property
    def running(self) -> set[str]:
        """Keys of the runs that have been started and have not ended."""
        return set(self._keys.values())

    @property
    def has_room(self) -> bool:
        """Whether another can be started."""
        return len(self._keys) < self._most

    def start(self, job: Job) -> None:
        """Hand a run to Ray."""
        self._mailbox.expect.remote(job.key)
        job = dataclasses.replace(job, folder=job.folder.resolve())
        self._keys[self._task.remote(job, self._work, self._mailbox, os.getcwd())] = job.key

    def events(self, timeout_seconds: float) -> list[Event]:
        """What has happened since; waits for something to."""
        if not self._keys:
            time.sleep(timeout_seconds)
            return []
        if self._mail is None:
            self._mail = self._mailbox.collect.remote()
        ready, _ = self._ray.wait(
            [*self._keys], num_returns=len(self._keys), timeout=timeout_seconds
        )
        found: list[Event] = []
        if self._ray.wait([self._mail], timeout=0)[0]:
            mail, self._mail = self._mail, None
            found += [event for event in self._ray.get(mail) if event.key in self.running]
        found += [self._result(reference) for reference in ready]
        return found

    def _result(self, reference: Any) -> Event:
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        key = self._keys.pop(reference)
        try:
            event: Event = self._ray.get(reference)
            return event
        except TaskCancelledError:
            return Raised(key=key, error=Interrupted("stopped before it had begun."))
        except RayTaskError as error:
            if isinstance(error.cause, KeyboardInterrupt | Interrupted):
                return Raised(key=key, error=Interrupted("stopped; what was checkpointed goes on."))
            return Raised(
                key=key,
                error=EnvironmentFailure(
                    f"{key} could not be run on the Ray cluster: "
                    f"{str(error.cause or error).splitlines()[0]} mudit, in the same version, must "
                    "be installed on all of its machines."
                ),
            )
        except RayError:  # the worker or its machine died, or the memory monitor killed it
            return Lost(key=key)

    def stop(self) -> None:
        """Ask all runs to save and stop; `events` still says how each ended."""
        if not self._keys:
            return
        begun = self._ray.get(self._mailbox.stop.remote())
        for reference, key in self._keys.items():
            if key not in begun:  # it waits for room, maybe for long
                self._ray.cancel(reference)

    def close(self) -> None:
        """Let the workers go; runs that are still under way are saved first."""
        self.stop()
        if self._keys:
            self._ray.wait([*self._keys], num_returns=len(self._keys))
        self._ray.kill(self._mailbox)


def _do_on_ray(job: Job, work: Work, mailbox: Any, here: str) -> Event:
    """A task: one run, in a worker of Ray's; `here` is where the command was given."""
    import ray
    from ray.exceptions import RayActorError

    asked, answer = time.monotonic(), None

    def ask() -> bool:
        """Whether to stop; the answer to the last question, so as not to wait for it."""
        nonlocal asked, answer
        if answer is None:
            if time.monotonic() - asked > _ASK_SECONDS:
                answer = mailbox.must_stop.remote()
            return False
        if not ray.wait([answer], timeout=0)[0]:
            return False
        asked, before, answer = time.monotonic(), answer, None
        try:
            return bool(ray.get(before))
        except RayActorError:  # the command is gone
            return True

    def tick(step: int, loss: float) -> None:
        mailbox.post.remote(Ticked(key=job.key, step=step, steps=job.config.steps, loss=loss))

    if ray.get(mailbox.begin.remote(job.key)):
        return Raised(key=job.key, error=Interrupted("stopped before it had begun."))
    if not job.folder.parent.is_dir():
        return Raised(
            key=job.key,
            error=EnvironmentFailure(
                f"there is no folder {job.folder.parent} on {socket.gethostname()}, a machine of "
                "the Ray cluster. The study's folder must be on a file system that all machines "
                "share: choose one with --folder."
            ),
        )
    with suppress(OSError):  # the data's path may be relative
        os.chdir(here)
    return do_job(job, work, tick, ask)
