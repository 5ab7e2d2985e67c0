"""
Names that Python removed and the original framework still asks for.

Every Python that has this folder on its path reads it at start; only the interoperability tests put it there, for
`cocaine` 0.12.14.5 and the tornado it needs, in an environment of their own.
"""

import collections
import collections.abc
import inspect

_MOVED = (
    "Awaitable", "Callable", "Container", "Coroutine", "Generator", "Hashable", "Iterable", "Iterator", "Mapping",
    "MutableMapping", "MutableSequence", "MutableSet", "Sequence", "Set", "Sized",
)  # fmt: skip

for _name in _MOVED:
    if not hasattr(collections, _name):
        setattr(collections, _name, getattr(collections.abc, _name))

if not hasattr(inspect, "getargspec"):
    _ArgSpec = collections.namedtuple("_ArgSpec", "args varargs keywords defaults")

    def _getargspec(function):
        """What `inspect.getargspec` answered before Python 3.11."""
        full = inspect.getfullargspec(function)
        return _ArgSpec(full.args, full.varargs, full.varkw, full.defaults)

    inspect.getargspec = _getargspec
