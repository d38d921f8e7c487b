"""An HTTP server in a thread, as well or badly behaved as a test wants it."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, content, *, ranges=True, cut=None, pause=None, hold=None, length=True
    ):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.ranges = ranges  # whether it heeds a Range header
        self.cut = cut  # closes the connection after so many bytes of an answer
        self.pause = pause  # waits for this event before it answers
        self.hold = hold  # waits for this event before it closes the connection
        self.length = length  # whether it announces the length
        self.requests = []

    def handle_error(self, request, client_address):
        pass  # a client that goes away

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/net.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append((self.path, asked))
        if server.pause:
            server.pause.wait(10)
        if server.content is None:
            self.send_error(404)
            return
        content, start = server.content, 0
        if asked and server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            end = len(content)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        else:
            self.send_response(200)
        body = content[start:]
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut])
        if server.hold:
            server.hold.wait(10)

    def log_message(self, *_):
        pass


@contextmanager
def serving(content, **how):
    """Serve the content at `server.address`; None answers 404."""
    server = Server(content, **how)
    # The default looks for the end twice a second only.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
