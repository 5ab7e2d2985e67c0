#!/usr/bin/env python3
"""
A room: what one says all hear, over WebSockets, by an ASGI application that any framework could be.

Needs wsproto (``pip install 'cocaine_tx[asgi]'``). Who shall hear each other must be in one worker: a profile with
``"pool-limit": 1``, and a ``concurrency`` for as many as may be in the room.
"""

import asyncio

from cocaine_tx.worker import Worker
from cocaine_tx.worker.asgi import asgi

PAGE = b"""<!doctype html><title>Chat</title><input id=say autofocus><pre id=heard></pre><script>
const socket = new WebSocket(location.href.replace(/^http/, "ws"));
socket.onmessage = event => heard.append(event.data + "\\n");
say.onchange = () => { socket.send(say.value); say.value = ""; };
</script>"""

room = set()


async def tell(text):
    """Everybody hears it; who has just left does not mind."""
    message = {"type": "websocket.send", "text": text}
    await asyncio.gather(*[send(message) for send in room], return_exceptions=True)


async def chat(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": PAGE})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        room.add(send)
        try:
            await tell(f"{len(room)} here")
            while (message := await receive())["type"] == "websocket.receive":
                await tell(message.get("text") or "?")
        finally:
            room.discard(send)
            await tell(f"{len(room)} here")


worker = Worker()
worker.on("http", asgi(chat, message_limit=65536))

if __name__ == "__main__":
    worker.run()
