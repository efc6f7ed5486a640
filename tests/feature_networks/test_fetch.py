"""Downloads of weights, from a server on this machine: right, wrong, broken, continued, and offline."""

import hashlib
import http.server
import os
import re
import threading

import pytest

from gan_jax import feature_networks
from gan_jax.eval import WeightsFile
from gan_jax.feature_networks.fetch import NETWORKS
from gan_jax.feature_networks.weights import VARIABLE, default_directory
from gan_jax.types import InvalidInputError
from tests.processes import free_port, run

CONTENT = bytes(range(256)) * 20_000  # 5 MB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves one file; `breaks` connections end after `after` bytes."""

    breaks, after, ranges, status = 0, 2_000_000, True, 200

    def __init__(self):
        super().__init__(("localhost", 0), Handler)
        self.asked, self.content = [], CONTENT


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *words):
        pass

    def do_GET(self):
        server, asked = self.server, self.headers.get("Range", "")
        server.asked.append(asked)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/net.pth")
            self.end_headers()
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content) - begin))
        self.end_headers()
        if server.breaks:
            server.breaks -= 1
            self.wfile.write(server.content[begin : begin + server.after])
            self.close_connection = True
        else:
            self.wfile.write(server.content[begin:])


@pytest.fixture
def server():
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def file(server, path="net.pth", **values):
    url = f"http://localhost:{server.server_port}/{path}"
    return WeightsFile("net.pth", len(CONTENT), DIGEST, url, {}, other_names=("same.pth",))._replace(**values)


def fetch(wanted, directory, **options):
    said, seen = [], []
    path = feature_networks.fetch(
        wanted, directory, log=said.append, wait=0.0, progress=lambda *values: seen.append(values), **options
    )
    return path, said, seen


def test_a_download(server, tmp_path):
    path, said, seen = fetch(file(server, "moved"), tmp_path / "new" / "place")
    assert path == tmp_path / "new" / "place" / "net.pth" and path.read_bytes() == CONTENT
    assert [x.name for x in path.parent.iterdir()] == ["net.pth"]
    assert "5,120,000 bytes" in said[0] and str(tmp_path) in said[0]
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen) and seen[-1] == (5120000, 5120000, 0.0)
    assert all(seconds > 0 for done, _, seconds in seen[:-1])
    count = len(server.asked)
    assert fetch(file(server), path.parent)[0] == path and len(server.asked) == count  # it is there
    path.rename(path.with_name("same.pth"))
    assert fetch(file(server), path.parent)[0].name == "same.pth"


def test_a_wrong_file(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(InvalidInputError, match=r"(?s)which is not net.pth.*was removed.*put it into"):
        fetch(file(server), tmp_path)
    assert not list(tmp_path.iterdir())
    server.content = CONTENT + b"more"  # what exceeds the size is not even read
    assert fetch(file(server), tmp_path)[0].read_bytes() == CONTENT
    (tmp_path / "net.pth").write_bytes(b"mine")
    with pytest.raises(InvalidInputError, match="move it away"):
        fetch(file(server), tmp_path)
    assert (tmp_path / "net.pth").read_bytes() == b"mine"


def test_broken_connections_are_continued(server, tmp_path):
    server.breaks = 2
    path, said, _ = fetch(file(server), tmp_path)
    assert path.read_bytes() == CONTENT and sum("connection broke" in x for x in said) == 2
    assert server.asked == ["", "bytes=2000000-", "bytes=4000000-"]


def test_a_server_without_parts_begins_again(server, tmp_path):
    server.breaks, server.ranges = 1, False
    assert fetch(file(server), tmp_path)[0].read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_download_that_gave_up_is_continued_by_the_next_call(server, tmp_path):
    server.breaks, server.after = 6, 0
    (tmp_path / "net.pth.part").write_bytes(CONTENT[:3_000_000])
    with pytest.raises(InvalidInputError, match="3,000,000 of 5,120,000 bytes are here, and the next call continues"):
        fetch(file(server), tmp_path)
    server.breaks = 0
    assert fetch(file(server), tmp_path)[0].read_bytes() == CONTENT
    assert set(server.asked) == {"bytes=3000000-"}
    (tmp_path / "net.pth").unlink()
    (tmp_path / "net.pth.part").write_bytes(b"x" + CONTENT[1:4_000_000])  # of another file
    with pytest.raises(InvalidInputError, match="was removed"):
        fetch(file(server), tmp_path)
    assert fetch(file(server), tmp_path)[0].read_bytes() == CONTENT


def test_refusals(server, tmp_path):
    server.status = 404
    with pytest.raises(InvalidInputError, match=r"404.*Without a connection: expected net.pth"):
        fetch(file(server), tmp_path)
    assert len(server.asked) == 1
    server.status = 503
    with pytest.raises(InvalidInputError, match="503"):
        fetch(file(server), tmp_path)
    assert len(server.asked) == 6
    closed = file(server)._replace(url=f"http://localhost:{free_port()}/net.pth")
    for wanted, said in (
        (closed, r"Connection refused.*put it into"),
        (file(server, sha256=None), "no address to download it from"),
        (file(server, url="the authors' page"), "no address to download it from"),
        ("lpips_of_nobody", "expected one of fid, "),
    ):
        with pytest.raises(InvalidInputError, match=said):
            fetch(wanted, tmp_path)
    with pytest.raises(InvalidInputError, match="make room"):
        fetch(file(server, size=2**60), tmp_path)


def test_two_downloads_of_one_file(server, tmp_path):
    refused = []

    def again(*values):
        if not refused:
            with pytest.raises(InvalidInputError, match=f"is being downloaded by process {os.getpid()}") as caught:
                feature_networks.fetch(file(server), tmp_path)
            refused.append(caught.value)

    path = feature_networks.fetch(file(server), tmp_path, log=lambda message: None, progress=again)
    assert path.read_bytes() == CONTENT and len(refused) == 1


def test_the_networks_look_where_it_is_put(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "gan_jax" / "weights"
    with pytest.raises(InvalidInputError, match=re.escape(str(default_directory()))):
        NETWORKS["fid"]().load()
    for name, network in NETWORKS.items():
        assert re.fullmatch("[0-9a-f]{64}", network().file.sha256)
        assert network().file.url.startswith("https://") or name == "lpips"


@pytest.mark.slow
def test_the_command(tmp_path):
    shut = f"http://localhost:{free_port()}"
    for flags, said in (
        ((), "expected one or more of fid"),
        (("fdi",), "names=fdi: expected"),
        (("fid", f"--directory={tmp_path}"), "Without a connection: expected pt_inception"),
    ):
        assert said in run("fetch", *flags, code=2, https_proxy=shut, HTTPS_PROXY=shut)
    assert "unexpected arguments" in run("sample", "--workdir=x", "more", code=2)
