"""
How many files and sockets a process may have open: shells give 1024, which a daemon for thousands of clients outgrows.
"""

from __future__ import annotations

import resource

#: Files that a process needs beside its clients: logs, pipes, connections to applications.
SPARE = 1024


def allow_clients(count: int) -> str:
    """
    Let this process, and those it starts, have that many clients, as far as the hard limit goes.

    :return: what is missing, in one line; empty if nothing is.
    """
    wanted = count + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return ""
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed >= count:
        return ""
    return (
        f"limits.connections: {count} clients need {wanted} open files and {allowed} are allowed: those above are "
        "closed at once; raise the hard limit (LimitNOFILE, ulimit -Hn) or give fewer"
    )
