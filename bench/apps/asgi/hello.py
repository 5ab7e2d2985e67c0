"""``examples/hello`` once more, for uvicorn: the same work and the same answer."""

from urllib.parse import parse_qs


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    name = parse_qs(scope["query_string"].decode("latin-1")).get("name", ["world"])[0]
    body = f"Hello, {name}!\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
