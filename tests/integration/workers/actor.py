#!/usr/bin/env python3
"""
A worker that speaks raw frames and does one bad thing, named by ``ACT`` in its environment; without one it echoes.

Stands alone: neither our SDK nor the original's, so that no framework's good manners stand between it and the node.
"""

import os
import signal
import socket
import sys
import time

import msgpack

ACT = os.environ.get("ACT", "")
options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
uuid = options["--uuid"]


def packed(*frames):
    return b"".join(msgpack.packb(frame, use_bin_type=False) for frame in frames)


def connected():
    line = socket.socket(socket.AF_UNIX)
    line.connect(options["--endpoint"])
    return line


if ACT == "quits":
    print("no, thank you")
    sys.stdout.write("an unfinished line")
    sys.stdout.flush()
    sys.exit(3)
if ACT == "mute":
    time.sleep(3600)
if ACT == "flood" and os.fork() == 0:
    while os.getppid() != 1:
        for _ in range(250):
            os.write(1, b"x" * 4095 + b"\n")
        time.sleep(0.02)
    sys.exit(0)
if ACT == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if ACT == "late":
    time.sleep(0.5)

line = connected()
if ACT == "silent":
    time.sleep(3600)
if ACT == "stranger":
    line.sendall(packed([1, 0, ["00000000-0000-4000-8000-000000000000"]], [1, 0, []]))
    sys.exit(0 if line.recv(100) == b"" else 1)
line.sendall(packed([1, 0, [uuid]], [1, 0, []]))
if ACT == "double":
    twin = connected()
    twin.sendall(packed([1, 0, [uuid]], [1, 0, []]))
    print("the twin heard", twin.recv(100))

unpacker = msgpack.Unpacker(raw=True)
open_channels = set()
hanging = set()
last_beat = time.monotonic()
line.settimeout(0.5)
while True:
    if time.monotonic() - last_beat > 1:
        line.sendall(packed([1, 0, []]))
        last_beat = time.monotonic()
    try:
        data = line.recv(65536)
    except TimeoutError:
        continue
    if not data:
        sys.exit(0)
    unpacker.feed(data)
    answer = b""
    for number, kind, args, *_ in unpacker:
        if number == 1:
            if kind == 1 and ACT != "stubborn":
                line.sendall(answer + packed([1, 1, args]))
                sys.exit(0)
        elif kind == 0 and number not in open_channels:
            open_channels.add(number)
            if args[0] == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            if args[0] == b"freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            if args[0] == b"hangup":
                line.sendall(packed([number, 0, [b"half an ans"]]))
                line.close()
                time.sleep(3600)
            if args[0] == b"pid":
                answer += packed([number, 0, [b"%d" % os.getpid()]])
        elif number in hanging or (args and args[0] == b"hang"):
            hanging.add(number)
        elif kind == 2:
            answer += packed([number, 2, []])
            if ACT == "twice":
                answer += packed([number, 2, []])
        else:
            answer += packed([number, kind, args])
    line.sendall(answer)
