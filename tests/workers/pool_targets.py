"""What the processes of the pool's tests call."""

import os
import sys
import threading

from curvscope.errors import InvalidArgument, NotHermitian


def leave(code):
    sys.exit(code)


def unpicklable():
    return lambda: 0


def refuse():
    raise NotHermitian("asymmetric", 0.5)


def fail():
    raise InvalidArgument("k=0")


def hang():
    threading.Event().wait()


def environment(name):
    return os.environ.get(name)


class Unreadable:
    def __reduce__(self):
        return fail, ()
