"""As much of Ray as the executor uses, in threads of this process: for tests without Ray.

Put the folder above this one in front of the path. Two tasks run at once; one that is cancelled has
KeyboardInterrupt raised in it, as Ray does.
"""

from __future__ import annotations

import ctypes
import queue
import threading

__version__ = "2.60.0"
_room = threading.Semaphore(2)
_state = {"open": False}


class exceptions:  # noqa: N801 - a module of Ray's
    class RayError(Exception):
        pass

    class TaskCancelledError(RayError):
        pass

    class OutOfMemoryError(RayError):
        pass

    class NodeDiedError(RayError):
        pass

    class RayTaskError(RayError):
        def __init__(self, cause):
            super().__init__(str(cause))
            self.cause = cause


def init(**_):
    _state["open"] = True


def is_initialized():
    return _state["open"]


def shutdown():
    _state["open"] = False


def cluster_resources():
    return {"CPU": 2.0, "memory": 1e9}


def nodes():
    return [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"CPU": 9.0}}]


class _Task:
    def __init__(self, function):
        self.function = function

    def remote(self, *given):
        return _Stream(self.function, given)


def remote(**options):
    assert options["max_calls"] == 1
    assert options["num_returns"] == "streaming"
    return _Task


class _Stream:
    """What a task yields, as it comes."""

    def __init__(self, function, given):
        self.lines = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, args=(function, given), daemon=True)
        self.cancelled = threading.Event()
        self.thread.start()

    def _run(self, function, given):
        try:
            with _room:
                if self.cancelled.is_set():
                    raise KeyboardInterrupt  # noqa: TRY301
                for line in function(*given):
                    self.lines.put(line)
        except KeyboardInterrupt:
            self.lines.put(exceptions.TaskCancelledError("it was cancelled"))
        except BaseException as error:  # noqa: BLE001
            self.lines.put(exceptions.RayTaskError(error))
        self.lines.put(None)

    def __iter__(self):
        while (line := self.lines.get()) is not None:
            yield line


def get(line):
    if isinstance(line, Exception):
        raise line
    return line


def cancel(stream):
    if not stream.cancelled.is_set() and stream.thread.is_alive():
        stream.cancelled.set()
        number = ctypes.c_ulong(stream.thread.ident)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(KeyboardInterrupt))
