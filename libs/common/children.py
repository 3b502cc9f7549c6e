"""Child processes that do not outlive us, whatever ends us."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def dying_with_parent(by: signal.Signals) -> Callable[[], None]:
    """Make what a child does before `exec` (`preexec_fn`): ask the kernel for a signal when we end.

    The signal comes when the *thread* that started the child ends: start it from the main one.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def prepare() -> None:
        # A shell's background job ignores SIGINT, and `exec` would pass that on.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        prctl(_PR_SET_PDEATHSIG, int(by))
        if os.getppid() != parent:
            # We were killed before the kernel knew of the wish.
            os._exit(1)

    return prepare
