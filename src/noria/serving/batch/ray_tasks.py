"""Parts done as Ray tasks, on the machines of a Ray cluster; on this one where none is named by RAY_ADDRESS."""

from __future__ import annotations

import functools
import pickle
from typing import Any

from noria.features.ray_cluster import RayCluster
from noria.serving.batch.parts import Done, Part
from noria.serving.batch.processes import Event
from noria.serving.batch.worker import Failure, PartWorker, Task, failure_of, share_machine


class RayTasks:
    """Up to ``count`` tasks at once. Ray itself does not repeat them: the leader counts the tries of every engine."""

    def __init__(self, task: Task, count: int) -> None:
        self._cluster = RayCluster(count)
        self._ray = self._cluster.api
        self._do = self._ray.remote(max_retries=0, num_cpus=1)(do_part)
        self._task, self._count = self._ray.put(pickle.dumps(task)), count
        self._running: dict[Any, Part] = {}

    @property
    def free(self) -> int:
        """See Engine."""
        return self._count - len(self._running)

    def start(self, part: Part) -> None:
        """See Engine."""
        self._running[self._do.remote(self._task, part)] = part

    def events(self, seconds: float) -> list[Event]:
        """See Engine. Of a part one hears when it ends."""
        if not self._running:
            return []
        ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._result(one, self._running.pop(one)) for one in ended]

    def close(self) -> None:
        """See Engine."""
        for one in self._running:
            self._ray.cancel(one, force=True)
        self._cluster.close()

    def _result(self, reference: Any, part: Part) -> Event:
        try:
            found: Event = self._ray.get(reference)
        except Exception as error:  # the task's machine or process is gone
            return failure_of(part.number, error)
        return found


def do_part(task: bytes, part: Part) -> Done | Failure:
    """One part, in a process of Ray's."""
    try:
        return _worker(task).do(part, lambda _rows: None)
    except Exception as error:
        return failure_of(part.number, error)


@functools.lru_cache(maxsize=1)
def _worker(task: bytes) -> PartWorker:
    """The model of a job, loaded once a process."""
    wanted: Task = pickle.loads(task)
    share_machine(wanted.workers)
    return PartWorker(wanted)
