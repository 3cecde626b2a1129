"""Ends a program by the signals that ask for it, with its cleaning up, and also as process 1.

The kernel ignores signals of process 1 that it does not handle (pid_namespaces(7)): without this, a
container that is stopped would wait to be killed.
"""

from __future__ import annotations

# Importing the module signal takes longer than a whole warm start.
import _signal  # type: ignore[import-not-found]
import os
import time

NAMES = {
    _signal.SIGHUP: "SIGHUP",
    _signal.SIGINT: "SIGINT",
    _signal.SIGQUIT: "SIGQUIT",
    _signal.SIGTERM: "SIGTERM",
}
_GRACE = 3.0  # seconds for cleaning up while the main thread may be in a library's call
_AGAIN = 1.0  # seconds after which a second signal is another request, and not an echo


class Stopped(KeyboardInterrupt):
    """A signal asks the program to end. code: its exit code, 128 and the signal, as in shells."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {NAMES[number]}")
        self.code = 128 + number


class Stopping:
    """A context in which these signals raise Stopped, unless they are ignored or have a handler.

    A second one, a second later or after that, ends the process at once. It works in the main
    thread only; elsewhere nothing changes.
    """

    def __init__(self) -> None:
        self._before: dict[int, object] = {}
        self._asked: float | None = None
        self._watched = False

    def __enter__(self) -> Stopping:
        for number in NAMES:
            handler = _signal.getsignal(number)
            if handler in (_signal.SIG_DFL, _signal.default_int_handler):
                try:
                    _signal.signal(number, self._stop)
                except ValueError:  # this is not the main thread
                    break
                self._before[number] = handler
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        if self._watched:
            _signal.set_wakeup_fd(-1)

    def watch(self) -> None:
        """From now on end the process soon after a signal, even if the main thread is stuck.

        It may be in a call that no signal interrupts, such as one of a library in another language.
        For a program that leaves nothing which its next start does not remove.
        """
        if self._watched or not self._before:
            return
        import _thread

        told, tells = os.pipe()
        os.set_blocking(tells, False)
        _signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
        self._watched = True
        _thread.start_new_thread(self._end_after, (told,))

    def _end_after(self, told: int) -> None:
        number = 0
        while number not in self._before:
            number = os.read(told, 1)[0]
        time.sleep(_GRACE)
        os._exit(128 + number)

    def _stop(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
            raise Stopped(number)
        if now - self._asked >= _AGAIN:
            os._exit(128 + number)


def hand_on() -> None:
    """Give each signal with a handler its default again, for a program that this process becomes.

    (exec does so too, but a signal just before it would be lost.)
    """
    for number in NAMES:
        if callable(_signal.getsignal(number)):
            _signal.signal(number, _signal.SIG_DFL)
