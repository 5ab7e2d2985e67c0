"""
The corpus through a real nginx and a real haproxy in front of ours: both see the same requests.

A front gives every request that it sends on an id of its own and logs how it understood it. Our proxy logs the id of
whatever it took for a request, and an app writes down what reached it. One request at the front must be one at ours,
with the same id, method, target, host and body; a request without a front's id was smuggled. What a front lets through
and ours refuses (a control character, a malformed Host) is no such difference: the front is told so. nginx is there
twice: it either keeps a body until it has all of it, or passes it on as it comes, chunks as chunks.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from bench.processes import free_port
from tests.integration.daemons import PATIENCE, Platform, listening, until
from tests.proxy import cases

WITNESS = Path(__file__).with_name("witness")

#: Both fronts keep their connections to ours for other clients' requests: that is where smuggling would happen.
NGINX = """
daemon off; error_log {folder}/nginx.error; pid {folder}/nginx.pid; worker_processes 1;
events {{ worker_connections 2048; }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    log_format told escape=json '{{"id": "$request_id", "status": "$upstream_status", "method": "$request_method", '
        '"target": "$request_uri", "host": "$host", "body": "$request_body", "whole": "$request_completion"}}';
    upstream ours {{ server 127.0.0.1:{ours}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        access_log {folder}/nginx.log told;
        client_header_timeout 2s; client_body_timeout 2s; keepalive_timeout 1s; lingering_close off;
        client_max_body_size 4g; client_body_buffer_size 64k; underscores_in_headers on;
        location / {{
            proxy_pass http://ours; proxy_http_version 1.1; proxy_request_buffering {buffering};
            proxy_set_header Connection ""; proxy_set_header Host $host;
            proxy_set_header X-Cocaine-Service witness; proxy_set_header X-Cocaine-Event http;
            proxy_set_header X-Request-Id $request_id; proxy_set_header X-Witness {folder}/seen;
        }}
    }}
}}
"""
HAPROXY = """
global
    log stdout len 65535 format raw daemon
    tune.bufsize 65536
defaults
    mode http
    timeout connect 5s
    timeout server 10s
    timeout client 2s
    timeout http-request 2s
    timeout http-keep-alive 1s
frontend front
    bind 127.0.0.1:{port}
    log global
    option http-buffer-request
    unique-id-format %{{+X}}o%cp-%rt-%pid
    unique-id-header X-Request-Id
    http-request set-header X-Cocaine-Service witness
    http-request set-header X-Cocaine-Event http
    http-request set-header X-Witness {folder}/seen
    http-request set-var(txn.target) url,hex
    http-request set-var(txn.host) req.hdr(host),hex
    http-request set-var(txn.body) req.body,hex
    log-format "%ID %s %ST =%HM =%[var(txn.target)] =%[var(txn.host)] =%[var(txn.body)]"
    default_backend ours
backend ours
    http-reuse always
    server ours 127.0.0.1:{ours}
"""


#: In place of a status: the front had begun to send it on when it turned out to be no whole request.
BROKEN = 0
#: What ours says of these.
ENDED = "the connection ended inside a request"


class Seen(NamedTuple):
    """A request, as somebody understood it; ``status`` is what ours answered, or `BROKEN`."""

    id: str
    status: int
    method: str
    target: str
    host: str
    body: bytes


def text(raw: str) -> str:
    """What haproxy has written in hex."""
    return bytes.fromhex("" if raw == "-" else raw).decode("latin-1")


def origin(method: str, target: str) -> str:
    """A target as path and query, as ours passes on an absolute one (RFC 9112 section 3.2.4 for ``*``)."""
    path = re.sub("^https?://[^/?]*", "", target, flags=re.IGNORECASE)
    if method == "OPTIONS" and target and not path:
        return "*"
    return path if path.startswith(("/", "*")) else "/" + path


def by_nginx(folder: Path) -> list[Seen]:
    """The requests that nginx has sent on."""
    told = [json.loads(line) for line in (folder / "nginx.log").read_text("latin-1").splitlines()]
    return [
        Seen(
            one["id"],
            int(one["status"]) if one["whole"] else BROKEN,
            one["method"],
            origin(one["method"], one["target"]),
            one["host"],
            one["body"].encode(),
        )
        for one in told
        if one["status"]
    ]


def by_haproxy(folder: Path) -> list[Seen]:
    """The requests that haproxy has sent on."""
    found = []
    for line in (folder / "haproxy.log").read_text("latin-1").splitlines():
        words = line.split(" ")
        if len(words) == 7 and words[1] == "ours":
            method, target, host, body = (word[1:] for word in words[3:])
            method = method.replace("#23", "#")  # as its log escapes it
            body_bytes = text(body).encode("latin-1")
            found.append(Seen(words[0], int(words[2]), method, origin(method, text(target)), text(host), body_bytes))
    return found


def send(port: int, raw: bytes) -> bytes:
    """What comes back for these bytes until the front closes; it does so soon after the last answer."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        try:
            client.sendall(raw)
            while data := client.recv(65536):
                got += data
        except OSError:
            pass  # a reset behind a refusal; what matters is what was sent on
    return got


class FrontTests(SynchronousTestCase):
    maxDiff = None
    def setUp(self) -> None:
        self.platform = Platform()
        self.addCleanup(self.platform.remove)
        self.folder = self.platform.folder

    def front(self, name: str, config: str, words: list[str], **more: Any) -> None:
        """Start our proxy and a front, send the corpus, stop both: logs are complete then."""
        binary = shutil.which(name) or shutil.which(name, path="/usr/sbin")
        if binary is None:
            raise SkipTest(f"{name} is not installed")
        self.platform.start_node()
        self.platform.run_app("witness", WITNESS, '{"pool-limit": 1, "concurrency": 1000, "queue-limit": 1000}')
        access = {"format": "json", "file": str(self.folder / "access")}
        ours = self.platform.start_proxy(**{"access-log": access})
        port = free_port()
        path = self.folder / f"{name}.conf"
        path.write_text(config.format(folder=self.folder, port=port, ours=self.platform.http, **more))
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen([binary, *words, str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            until(lambda: process.poll() is not None or listening(process.pid), f"{name} does not come up")
            with ThreadPoolExecutor(64) as pool:
                list(pool.map(lambda case: send(port, case.raw), cases.load()))
        finally:
            process.send_signal(signal.SIGQUIT if name == "nginx" else signal.SIGUSR1)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            ours.terminate()
            ours.wait(PATIENCE)

    def compare(self, front: list[Seen]) -> None:
        """Nothing was seen differently."""
        told = [json.loads(line) for line in (self.folder / "access").read_text().splitlines()]
        for one in told:
            if one.get("error") == ENDED:
                one["status"] = BROKEN
        self.assertEqual(Counter(one["status"] for one in told), Counter(one.status for one in front))
        for status in (200, BROKEN):
            taken = sorted(one["request_id"] for one in told if one["status"] == status)
            self.assertEqual(taken, sorted(one.id for one in front if one.status == status))
        accepted = sorted(one for one in front if one.status == 200)
        found = []
        for line in (self.folder / "seen").read_text().splitlines():
            one = json.loads(line)
            values = dict(one["headers"])
            body = bytes.fromhex(one["body"])
            found.append(Seen(values["x-request-id"], 200, one["method"], one["target"], values.get("host", ""), body))
        self.assertEqual(sorted(set(found) ^ set(accepted)), [], "seen by one only")
        self.assertEqual(len(found), len(accepted))
        self.assertGreater(len(found), 80)

    def test_nginx(self) -> None:
        """nginx and ours see the same requests in the whole corpus."""
        self.front("nginx", NGINX, ["-p", str(self.folder), "-c"], buffering="on")
        front = by_nginx(self.folder)
        self.compare(front)
        self.assertNotIn(BROKEN, [one.status for one in front])

    def test_nginx_unbuffered(self) -> None:
        """The same where bodies come as their clients send them; what breaks off there breaks off here."""
        self.front("nginx", NGINX, ["-p", str(self.folder), "-c"], buffering="off")
        front = by_nginx(self.folder)
        self.compare(front)
        self.assertIn(BROKEN, [one.status for one in front])

    def test_haproxy(self) -> None:
        """haproxy and ours see the same requests in the whole corpus."""
        self.front("haproxy", HAPROXY, ["-db", "-f"])
        self.compare(by_haproxy(self.folder))
