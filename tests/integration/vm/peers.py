"""
What runs on the other hosts of the machine, by its first word.

``serve NAME ADDRESS PORT`` answers every line with its name; ``count ADDRESS PORT N`` opens N connections and prints
who answered; ``hold ADDRESS PORT`` keeps one connection busy until its stdin ends, and prints who answered how often.
"""

import json
import select
import socket
import sys
import threading
from collections import Counter


def serve(name, address, port):
    listening = socket.create_server((address, int(port)), backlog=128)
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=talk, args=(name, connection), daemon=True).start()


def talk(name, connection):
    with connection:
        while connection.recv(64):
            connection.sendall(name.encode() + b"\n")


def ask(connection):
    connection.sendall(b"?\n")
    return connection.recv(64).decode().strip()


def count(address, port, number):
    answers = Counter()
    kept = []
    for _ in range(int(number)):
        connection = socket.create_connection((address, int(port)), timeout=5)
        answers[ask(connection)] += 1
        # Kept until the end, so that a scheduler that counts connections has something to count.
        kept.append(connection)
    print(json.dumps(answers))


def hold(address, port):
    answers = Counter()
    with socket.create_connection((address, int(port)), timeout=5) as connection:
        print(ask(connection), flush=True)
        while not select.select([sys.stdin], [], [], 0.05)[0]:
            answers[ask(connection)] += 1
    print(json.dumps(answers), flush=True)


{"serve": serve, "count": count, "hold": hold}[sys.argv[1]](*sys.argv[2:])
