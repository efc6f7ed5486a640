"""Buckets on this machine for tests: emulators of both services behind a front that fails on request.

moto checks the conditions of writes to s3://. The emulator of gs:// ignores them, so the front checks them: a request
with `ifGenerationMatch` is passed on only if the object has that generation (0 if it must not exist), else answered by
412.
"""

import contextlib
import functools
import http.client
import http.server
import json
import logging
import threading
import urllib.parse

import pytest

NAME = "bucket"


class Front(http.server.ThreadingHTTPServer):
    """Passes requests on to an emulator.

    Attributes:
      fault: `(method, path) -> status` of an answer in place of the emulator's; 0 breaks the connection, None is none.
      requests: every request as `METHOD path`.
    """

    daemon_threads, block_on_close, request_queue_size = True, False, 128

    def __init__(self, emulator):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.emulator, self.requests, self.alone = emulator, [], threading.Lock()
        self.fault = lambda method, path: None
        threading.Thread(target=self.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """Says nothing: clients that are killed break their connections."""

    @contextlib.contextmanager
    def failing(self, status=503, *, only=lambda method, path: True):
        """Answers with an error while the context lasts."""
        before, self.fault = self.fault, lambda method, path: status if only(method, path) else None
        try:
            yield
        finally:
            self.fault = before

    def fetch(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.emulator, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status = self.server.fault(self.command, self.path)
        self.server.requests.append(f"{self.command} {self.path}")
        if status == 0:
            self.close_connection = True
            self.connection.close()
        elif status is not None:
            self._answer(status, [], b"")
        else:
            with self.server.alone:
                self._answer(*self._answered(body))

    def _answered(self, body):
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "content-length")}
        named = query.get("name") or urllib.parse.unquote(parts.path.partition("/o/")[2])
        if "ifGenerationMatch" in query and query["ifGenerationMatch"] != self._generation(named):
            return 412, [], b"{}"
        status, answered, content = self.server.fetch(self.command, self.path, body, headers)
        if query.get("alt") == "media" and status == 200:
            answered.append(("x-goog-generation", self._generation(named)))
        return status, answered, content

    def _generation(self, key):
        """Returns the generation of an object of gs://, 0 if it does not exist."""
        path = f"/storage/v1/b/{NAME}/o/{urllib.parse.quote(key, safe='')}"
        status, _, content = self.server.fetch("GET", path)
        return json.loads(content)["generation"] if status == 200 else "0"

    def _answer(self, status, headers, content):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        length = {k.lower(): v for k, v in headers}.get("content-length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - names of the standard library

    def log_message(self, *arguments):
        """Says nothing."""


@functools.cache
def front(scheme):
    """Serves a bucket named `NAME` of a scheme for as long as the process lives; returns its front."""
    return {"gs": _google, "s3": _amazon}[scheme]()


def _google():
    server = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator (extra test)")
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    made = server.create_server("127.0.0.1", 0, in_memory=True, default_bucket=NAME)
    made._api.daemon = True
    made.start()
    return Front(made._api._httpd.server_address[1])


def _amazon():
    moto = pytest.importorskip("moto.server", reason="needs moto and flask (extra test)")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    made = Front(server.get_host_and_port()[1])
    made.fetch("PUT", f"/{NAME}")
    return made


def variables(scheme, front, **more):
    """Returns the environment in which a scheme's buckets are those of a front."""
    env = {
        "gs": {"TENSORSTORE_GCS_HTTP_URL": front.url},
        "s3": {"AWS_ENDPOINT_URL": front.url, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
               "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1"},
    }[scheme]  # fmt: skip
    return env | {"GAN_JAX_BUCKET_PATIENCE": "20", "GAN_JAX_LEASE_SECONDS": "2"} | more
