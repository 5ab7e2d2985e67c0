"""The app that echoes one chunk, on the original framework."""

from cocaine.worker import Worker


def echo(request, response):
    data = yield request.read()
    response.write(data)
    response.close()


worker = Worker()
worker.run({"echo": echo})
