"""Posters: where they are found, what is downloaded and what is refused, and how any image becomes pixels."""

from __future__ import annotations

import base64
import gzip
import io
import os
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recsys_ray.content.config import ImageSettings
from recsys_ray.content.encoders.image import prepare_image
from recsys_ray.content.encoders.problems import PosterError
from recsys_ray.content.posters import download
from recsys_ray.content.posters.download import is_public
from recsys_ray.content.posters.reader import Poster, poster_stamps, read_posters

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


PNG = encoded(Image.new("RGB", (4, 6), RED))


def read_one(reference: str | None, settings: ImageSettings | None = None, item_id: str = "item") -> Poster:
    (poster,) = read_posters([reference], [item_id], settings or ImageSettings())
    return poster


def problem(reference: str | None, settings: ImageSettings | None = None, item_id: str = "item") -> str:
    poster = read_one(reference, settings, item_id)
    assert poster.data is None and poster.problem is not None
    assert "\n" not in poster.problem
    return poster.problem.partition(":")[0]


# --- Files, directories, data URIs, stores ---


def test_posters_come_in_the_order_of_the_items(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(b"poster %d" % number)
    references = [None if number % 7 == 0 else str(tmp_path / f"{number}.png") for number in range(40)]
    posters = read_posters(references, [str(number) for number in range(40)], ImageSettings(threads=5))
    for number, poster in enumerate(posters):
        assert poster == (Poster() if number % 7 == 0 else Poster(b"poster %d" % number))


def test_a_local_file_by_every_kind_of_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "p%.png").write_bytes(PNG)
    monkeypatch.setenv("HOME", str(tmp_path))
    absolute = str(folder / "p%.png")
    as_url = "file://" + absolute.replace("%", "%25").replace(" ", "%20")
    for reference in (absolute, as_url, as_url.replace("file://", "file://localhost"), "~/a folder/p%.png"):
        assert read_one(reference) == Poster(PNG), reference
    assert read_one("p%.png", ImageSettings(root=str(folder))) == Poster(PNG)
    assert read_one("../a folder/p%.png", ImageSettings(root=str(folder))) == Poster(PNG)
    assert "content.image.root" in str(read_one("p%.png").problem)


def test_what_is_no_readable_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(bytes(2**20 + 1))
    small = ImageSettings(max_mib=1)
    assert problem(str(tmp_path / "nowhere.png")) == "not found"
    assert problem(str(tmp_path / "empty" / "below.png")) == "not found"
    assert problem(f"{tmp_path}/nul\0.png") == "not found"
    assert problem(str(tmp_path)) == "not readable"
    assert problem(str(tmp_path / "pipe")) == "not readable"
    assert problem(str(tmp_path / "empty")) == "not an image"
    assert problem(str(tmp_path / "large"), small) == "too large"
    (tmp_path / "large").write_bytes(bytes(2**20))
    assert read_one(str(tmp_path / "large"), small).data == bytes(2**20)
    assert problem("x" * 5000, ImageSettings(root=str(tmp_path))) == "not readable"
    assert [read_one(nothing) for nothing in (None, "", "  ")] == [Poster()] * 3


@pytest.mark.parametrize("item_id", ["7", "a/b", "../secret", "..", ".", "", "/etc/passwd", "Amélie ☂", "a b%2", "-x"])
def test_a_directory_by_item_id_is_never_left(tmp_path: Path, item_id: str) -> None:
    folder = tmp_path / "posters"
    folder.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    settings = ImageSettings(directory=str(folder))
    assert read_one(None, settings, item_id) == Poster()
    (folder / f"{item_id.replace('/', '%2F')}.webp").write_bytes(b"mine")
    assert read_one(None, settings, item_id) == Poster(b"mine")


def test_a_directory_goes_before_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"in the directory")
    (tmp_path / "other.png").write_bytes(b"in the catalogue")
    settings = ImageSettings(directory=str(tmp_path))
    other = str(tmp_path / "other.png")
    assert [poster.data for poster in read_posters([other, other], ["1", "2"], settings)] == [
        b"in the directory",
        b"in the catalogue",
    ]
    assert read_one(None, settings, "1" * 300) == Poster()


def test_data_uris(tmp_path: Path) -> None:
    body = base64.b64encode(PNG).decode()
    for uri in (
        f"data:image/png;base64,{body}",
        f"DATA:;BASE64,{body}",
        f"data:image/png;base64,{body}".replace("+", "%2B"),
    ):
        assert read_one(uri) == Poster(PNG)
    assert read_one("data:image/svg+xml,%3Csvg%2F%3E") == Poster(b"<svg/>")
    assert problem("data:image/png;base64,A") == "not an image"
    assert problem("data:image/png;base64") == "not an image"
    assert problem("data:,") == "not an image"
    assert (
        problem(f"data:;base64,{base64.b64encode(bytes(2000)).decode()}", ImageSettings(max_mib=0.001)) == "too large"
    )


def test_other_addresses_go_through_the_store() -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    store.pipe_file("/posters/7.png", PNG)
    store.pipe_file("/posters/a%3A%3Ab.png", PNG)
    assert read_one("memory://posters/7.png") == Poster(PNG)
    assert read_one("7.png", ImageSettings(root="memory://posters")) == Poster(PNG)
    by_item = ImageSettings(directory="memory://posters")
    assert read_one(None, by_item, "7") == read_one(None, by_item, "a::b") == Poster(PNG)
    assert read_one(None, by_item, "8") == Poster()
    assert problem("memory://posters/8.png") == "not found"
    assert problem("memory://posters/7.png", ImageSettings(max_mib=1e-6)) == "too large"
    assert problem("nosuchthing://x/8.png") == "not readable"


@pytest.mark.parametrize(
    "reference", ["simplecache::http://127.0.0.1/x.png", "zip://x.png::http://127.0.0.1/y.zip", "ftp://127.0.0.1/x.png"]
)
def test_stores_are_no_way_around_the_check_of_addresses(reference: str) -> None:
    assert problem(reference) == "unsupported address"


def test_stamps_notice_what_may_have_changed(tmp_path: Path) -> None:
    file, folder = tmp_path / "1.png", tmp_path / "posters"
    folder.mkdir()
    file.write_bytes(PNG)
    settings = ImageSettings(directory=str(folder))
    references, ids = [str(file), "https://example.org/2.png", None], ["1", "2", "3"]
    seen = [poster_stamps(references, ids, settings)]
    assert poster_stamps(references, ids, settings) == seen[0]
    assert poster_stamps(references, ids, settings.model_copy(update={"timeout_s": 99.0})) == seen[0]
    os.utime(file, ns=(1, 1))
    seen.append(poster_stamps(references, ids, settings))
    file.write_bytes(PNG + b"more")
    os.utime(file, ns=(1, 1))
    seen.append(poster_stamps(references, ids, settings))
    (folder / "3.jpg").write_bytes(PNG)
    seen.append(poster_stamps(references, ids, settings))
    file.unlink()
    seen.append(poster_stamps(references, ids, settings))
    seen.append(poster_stamps([references[0], "https://example.org/2b.png", None], ids, settings))
    seen.append(poster_stamps(references, ids, settings.model_copy(update={"max_mib": 1.0})))
    seen.append(poster_stamps(["relative.png", references[1], None], ids, settings))
    assert len(set(seen)) == len(seen)


# --- The web ---


class Server:
    """A web server whose pages are functions, and how often each was asked for."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                server.connections += 1
                super().setup()

            def do_GET(self) -> None:
                server.asked[self.path] += 1
                server.headers.append({name.lower(): value for name, value in self.headers.items()})
                server.pages.get(self.path, lambda page: answer(page, 404, b"no such page"))(self)

            def log_message(self, *_: Any) -> None: ...

        self.http = ThreadingHTTPServer(("", 0), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


def answer(page: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    page.send_response(status)
    for name, value in ({"Content_Length": str(len(body))} | headers).items():
        page.send_header(name.replace("_", "-"), value)
    page.end_headers()
    page.wfile.write(body)


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def web(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(download, "BACKOFF_S", 0.01)
    running.asked.clear()
    running.headers.clear()
    running.pages = {"/p.png": lambda page: answer(page, 200, PNG)}
    running.connections = 0
    return running


@pytest.fixture
def as_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 counts as an address of the internet; 127.0.0.2 stays what it is."""
    monkeypatch.setattr(download, "is_public", lambda address: address == "127.0.0.1")


INSIDE = ImageSettings(private_hosts=True, timeout_s=0.4, retries=2)


def test_a_poster_is_downloaded_and_connections_are_kept(web: Server) -> None:
    posters = read_posters([web.url("/p.png")] * 20, ["x"] * 20, ImageSettings(private_hosts=True, threads=2))
    assert posters == [Poster(PNG)] * 20
    assert web.asked["/p.png"] == 20 and web.connections <= 2
    assert web.headers[0]["host"] == f"127.0.0.1:{web.port}" and web.headers[0]["user-agent"].startswith("recsys_ray/")


def test_a_root_on_the_web_and_odd_characters(web: Server) -> None:
    web.pages["/w342/Am%C3%A9lie%202.png?size=1"] = web.pages["/p.png"]
    settings = ImageSettings(private_hosts=True, root=web.url("/w342/"))
    assert read_one("/Amélie 2.png?size=1#top", settings) == Poster(PNG)


@pytest.mark.parametrize(
    ("status", "category", "times"),
    [(404, "not found", 1), (410, "not found", 1), (403, "refused", 1), (204, "refused", 1), (503, "server error", 3)],
)
def test_statuses(web: Server, status: int, category: str, times: int) -> None:
    web.pages["/x"] = lambda page: answer(page, status, b"" if status == 204 else b"text")
    poster = read_one(web.url("/x"), INSIDE)
    assert poster.problem == f"{category}: HTTP {status}" and web.asked["/x"] == times


def test_a_server_that_recovers_is_asked_again(web: Server) -> None:
    def page(page: BaseHTTPRequestHandler) -> None:
        answer(page, 200 if web.asked["/x"] == 3 else 503, PNG)

    web.pages["/x"] = page
    assert read_one(web.url("/x"), INSIDE) == Poster(PNG)
    assert web.asked["/x"] == 3


def drip(page: BaseHTTPRequestHandler) -> None:
    """A body that never ends, fast enough that no single wait is long."""
    page.send_response(200)
    page.send_header("Content-Length", "100000")
    page.end_headers()
    try:
        for _ in range(60):
            page.wfile.write(b"x")
            time.sleep(0.05)
    except OSError:
        pass


def drip_head(page: BaseHTTPRequestHandler) -> None:
    """A head that never ends."""
    try:
        page.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(60):
            page.wfile.write(b"X-%d: y\r\n" % number)
            page.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("page", [drip, drip_head, lambda page: time.sleep(1.5)], ids=["body", "head", "silence"])
def test_slow_servers_time_out(web: Server, page: Callable[[BaseHTTPRequestHandler], None]) -> None:
    web.pages["/slow"] = page
    started = time.monotonic()
    settings = INSIDE.model_copy(update={"retries": 1, "timeout_s": 0.3})
    assert problem(web.url("/slow"), settings) == "timed out"
    assert web.asked["/slow"] == 2 and time.monotonic() - started < 2.0


def test_the_size_limit_holds_while_reading(web: Server) -> None:
    sent = Counter[str]()

    def declared(page: BaseHTTPRequestHandler) -> None:
        answer(page, 200, Content_Length=str(10**9))

    def endless(page: BaseHTTPRequestHandler) -> None:
        page.send_response(200)
        page.send_header("Connection", "close")
        page.end_headers()
        try:
            for _ in range(2000):
                page.wfile.write(bytes(64 * 1024))
                sent["bytes"] += 64 * 1024
        except OSError:
            pass

    def bomb(page: BaseHTTPRequestHandler) -> None:
        answer(page, 200, gzip.compress(bytes(20 * 2**20)), Content_Encoding="gzip")

    web.pages |= {"/declared": declared, "/endless": endless, "/bomb": bomb}
    settings = ImageSettings(private_hosts=True, max_mib=1, timeout_s=5)
    for path in web.pages.keys() - {"/p.png"}:
        assert problem(web.url(path), settings) == "too large" and web.asked[path] == 1
    assert sent["bytes"] < 60 * 2**20


def test_a_body_that_breaks_off_is_no_poster(web: Server) -> None:
    def page(page: BaseHTTPRequestHandler) -> None:
        answer(page, 200, b"half", Content_Length="1000")
        page.close_connection = True

    web.pages["/half"] = page
    assert problem(web.url("/half"), INSIDE) == "no connection"
    assert web.asked["/half"] == 3


def test_hosts_that_are_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    assert problem(f"http://127.0.0.1:{closed}/x", ImageSettings(private_hosts=True, retries=0)) == "no connection"
    assert problem("http://nowhere.invalid/x", ImageSettings(retries=0)) == "no connection"
    for reference in ("http:///x", "http://", "https://exa mple/x", "http://[::1/x", "http://127.0.0.1:99999/x"):
        assert problem(reference, INSIDE) == "unsupported address", reference


def test_a_dead_host_is_given_up(monkeypatch: pytest.MonkeyPatch, web: Server) -> None:
    monkeypatch.setattr(download, "GIVE_UP", 4)
    web.pages["/hangs"] = lambda page: setattr(page, "close_connection", True)
    settings = ImageSettings(private_hosts=True, threads=1, retries=0)
    posters = read_posters([web.url("/hangs")] * 10, ["x"] * 10, settings)
    assert {str(poster.problem).partition(":")[0] for poster in posters} == {"no connection"}
    assert web.asked["/hangs"] == 4 and "given up" in str(posters[-1].problem)


def test_private_addresses_are_not_asked(web: Server) -> None:
    for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
        assert problem(web.url("/p.png", host), ImageSettings()) == "private address", host
    assert not web.asked
    assert "content.image.private_hosts" in str(read_one(web.url("/p.png")).problem)


def redirect(to: str, status: int = 302) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda page: answer(page, status, b"elsewhere", Location=to)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(web: Server, as_public: None, status: int) -> None:
    web.pages |= {"/a": redirect("/b", status), "/b": redirect(web.url("/c")), "/c": redirect("p.png")}
    assert read_one(web.url("/a"), ImageSettings()) == Poster(PNG)


def test_more_redirects_than_three_are_not(web: Server, as_public: None) -> None:
    web.pages |= {"/a": redirect("/b"), "/b": redirect("/c"), "/c": redirect("/d"), "/d": redirect("/p.png")}
    assert problem(web.url("/a"), ImageSettings()) == "too many redirects"
    assert web.asked["/p.png"] == 0


@pytest.mark.parametrize("private_hosts", [False, True])
def test_a_public_host_can_not_redirect_to_a_private_one(web: Server, as_public: None, private_hosts: bool) -> None:
    web.pages |= {"/a": redirect(web.url("/b")), "/b": redirect(web.url("/p.png", "127.0.0.2"))}
    settings = ImageSettings(private_hosts=private_hosts)
    assert problem(web.url("/a"), settings) == "private address"
    assert web.asked["/b"] == 1 and web.asked["/p.png"] == 0
    # The same address, asked for by the catalogue itself, is a matter of the setting.
    direct = read_one(web.url("/p.png", "127.0.0.2"), settings)
    assert (direct.data == PNG) == private_hosts


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "gopher://x"])
def test_redirects_stay_on_the_web(web: Server, as_public: None, to: str) -> None:
    web.pages["/a"] = redirect(to)
    assert problem(web.url("/a"), ImageSettings()) == "unsupported address"


def test_a_name_is_resolved_once_and_connections_go_where_it_was_checked(
    web: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the name points to a public address when it is checked, to a private one ever after."""
    resolve, asked = socket.getaddrinfo, []

    def rebinding(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "poster.example":
            asked.append(host)
            host = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(download, "is_public", lambda address: address == "127.0.0.1")
    reached = []
    web.pages["/who"] = lambda page: (reached.append(page.request.getsockname()[0]), answer(page, 200, PNG))[1]
    url = web.url("/who", "poster.example")
    assert read_posters([url] * 8, ["x"] * 8, ImageSettings(threads=1)) == [Poster(PNG)] * 8
    assert asked == ["poster.example"] and set(reached) == {"127.0.0.1"}
    assert {headers["host"] for headers in web.headers} == {f"poster.example:{web.port}"}


def test_a_name_with_a_public_and_a_private_address_is_asked_at_the_public_one(
    web: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, web.port)) for host in ("127.0.0.2", "127.0.0.1")]
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **o: both if host == "both.example" else resolve(host, *a, **o)
    )
    monkeypatch.setattr(download, "is_public", lambda address: address == "127.0.0.1")
    reached = []
    web.pages["/who"] = lambda page: (reached.append(page.request.getsockname()[0]), answer(page, 200, PNG))[1]
    assert read_one(web.url("/who", "both.example"), ImageSettings()) == Poster(PNG)
    assert reached == ["127.0.0.1"]


def test_passwords_of_addresses_are_sent_but_never_shown(web: Server) -> None:
    url = web.url("/p.png", "user:secret@127.0.0.1")
    assert read_one(url, INSIDE) == Poster(PNG)
    assert web.headers[0]["authorization"] == "Basic " + base64.b64encode(b"user:secret").decode()
    for settings in (INSIDE, ImageSettings()):
        poster = read_one(url.replace("/p.png", "/x"), settings)
        assert poster.problem is not None and "secret" not in poster.problem


PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fc00::1",
    "fe80::1",
    "fe80::1%1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "100::1",
    "2001:0:53aa:64c:0:7fff:a3f5:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "2002:7f00:1::1",
    "2002:c0a8:101::1",
]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::5db8:d70e", True),
        *[(address, False) for address in PRIVATE],
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_certificates_are_checked_against_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x509 = pytest.importorskip("cryptography.x509")
    certificate = self_signed(x509, "localhost", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = Server()
    server.pages["/p.png"] = lambda page: answer(page, 200, PNG)
    server.http.socket = tls(certificate).wrap_socket(server.http.socket, server_side=True)
    try:
        address = f"https://{{}}:{server.port}/p.png"
        assert read_one(address.format("localhost"), INSIDE.model_copy(update={"timeout_s": 5.0})) == Poster(PNG)
        assert problem(address.format("127.0.0.1"), INSIDE) == "bad certificate"
        monkeypatch.delenv("SSL_CERT_FILE")
        assert problem(address.format("localhost"), INSIDE) == "bad certificate"
    finally:
        server.http.shutdown()
        server.http.server_close()


def self_signed(x509: Any, name: str, folder: Path) -> Path:
    """A certificate for a name, with its key, in one file."""
    import datetime

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "both.pem"
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return file


def tls(certificate: Path) -> Any:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


# --- Pixels ---

PALETTE, NETWORK = ImageSettings(encoder="palette"), ImageSettings(encoder="resnet18")
BOTH = pytest.mark.parametrize("settings", [PALETTE, NETWORK], ids=["palette", "network"])


def shape(settings: ImageSettings) -> tuple[int, int, int]:
    return (96, 64, 3) if settings.encoder == "palette" else (224, 224, 3)


def halves(left: Any, right: Any, mode: str = "RGB", size: tuple[int, int] = (80, 120)) -> Image.Image:
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, size[0], size[1]))
    return image


def sides(data: bytes, settings: ImageSettings) -> tuple[list[int], list[int]]:
    """The colours a quarter in from the left and from the right."""
    pixels = prepare_image(data, settings)
    assert pixels.shape == shape(settings) and pixels.dtype == np.uint8
    middle, quarter = pixels.shape[0] // 2, pixels.shape[1] // 4
    return pixels[middle, quarter].tolist(), pixels[middle, -quarter].tolist()


def like(found: tuple[list[int], list[int]], left: Any, right: Any, tolerance: int = 6) -> bool:
    return bool(np.abs(np.array(found) - np.array([left, right])).max() <= tolerance)


def with_transparency() -> Image.Image:
    """Red on the left, nothing on the right, in a palette whose colour of nothing is black."""
    image = Image.new("P", (80, 120), 0)
    image.putpalette([*RED, *BLACK])
    image.paste(1, (40, 0, 80, 120))
    return image


def deep(kind: str) -> bytes:
    grey = np.zeros((120, 80), np.uint16)
    grey[:, 40:] = 65535 // 2
    if kind == "float":
        return encoded(Image.fromarray(np.where(grey > 0, np.float32(0.5), np.float32(0))), "TIFF")
    if kind == "int":
        return encoded(Image.fromarray(np.where(grey > 0, 10**6, 0).astype(np.int32)), "TIFF")
    return encoded(Image.fromarray(grey), kind)


HALF = (128, 128, 128)
ODD_IMAGES: dict[str, tuple[bytes, Any, Any]] = {
    "RGB": (encoded(halves(RED, BLUE)), RED, BLUE),
    "JPEG": (encoded(halves(RED, BLUE), "JPEG", quality=95), (254, 0, 0), (0, 0, 254)),
    "progressive": (encoded(halves(RED, BLUE), "JPEG", quality=95, progressive=True), (254, 0, 0), (0, 0, 254)),
    "CMYK JPEG": (encoded(halves(RED, GREEN).convert("CMYK"), "JPEG", quality=95), RED, GREEN),
    "grey": (encoded(halves(0, 128, "L")), BLACK, HALF),
    "one bit": (encoded(halves(0, 1, "1")), BLACK, WHITE),
    "palette": (encoded(halves(RED, BLUE).convert("P")), RED, BLUE),
    "transparent palette": (encoded(with_transparency(), transparency=1), RED, WHITE),
    "alpha": (encoded(halves((0, 0, 255, 255), (0, 0, 0, 0), "RGBA")), BLUE, WHITE),
    "half alpha": (encoded(halves((0, 0, 0, 255), (0, 0, 0, 127), "RGBA")), BLACK, HALF),
    "grey alpha": (encoded(halves((0, 255), (0, 0), "LA")), BLACK, WHITE),
    "16 bits": (deep("PNG"), BLACK, HALF),
    "16 bits TIFF": (deep("TIFF"), BLACK, HALF),
    "32 bits": (deep("int"), BLACK, WHITE),
    "floats": (deep("float"), BLACK, HALF),
    "GIF": (encoded(halves(RED, BLUE), "GIF"), RED, BLUE),
    "BMP": (encoded(halves(RED, BLUE), "BMP"), RED, BLUE),
    "WebP": (encoded(halves(RED, BLUE), "WEBP", lossless=True), RED, BLUE),
    "animated GIF": (
        encoded(halves(RED, BLUE), "GIF", save_all=True, append_images=[halves(GREEN, GREEN)], duration=9),
        RED,
        BLUE,
    ),
    "animated WebP": (
        encoded(
            halves(RED, BLUE), "WEBP", save_all=True, lossless=True, append_images=[halves(GREEN, GREEN)], duration=9
        ),
        RED,
        BLUE,
    ),
    "one pixel": (encoded(Image.new("RGB", (1, 1), GREEN)), GREEN, GREEN),
    "strip": (encoded(halves(RED, BLUE, size=(6000, 1))), RED, BLUE),
    "tower": (encoded(halves(RED, BLUE, size=(2, 6000))), RED, BLUE),
}


@BOTH
@pytest.mark.parametrize("name", ODD_IMAGES)
def test_every_kind_of_image_shows_its_colours(name: str, settings: ImageSettings) -> None:
    data, left, right = ODD_IMAGES[name]
    found = sides(data, settings)
    if name == "strip" and settings.encoder != "palette":
        # A square from the middle of a strip of height 1 lies around the border of both halves.
        assert like((found[0], found[1]), RED, BLUE, tolerance=130)
    else:
        assert like(found, left, right, tolerance=20 if name == "tower" else 6), found


@BOTH
@pytest.mark.parametrize(("orientation", "left", "right"), [(1, RED, BLUE), (2, BLUE, RED), (3, BLUE, RED)])
def test_photographs_are_turned_upright(settings: ImageSettings, orientation: int, left: Any, right: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(halves(RED, BLUE, size=(320, 320)), "JPEG", quality=95, exif=exif)
    assert like(sides(data, settings), left, right)


@BOTH
def test_quarter_turns_and_broken_metadata(settings: ImageSettings) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the picture is its right side
    upright = halves(RED, BLUE, size=(320, 480))
    data = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)
    assert like(sides(data, settings), RED, BLUE)
    broken = encoded(upright, "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff nothing")
    assert like(sides(broken, settings), RED, BLUE)


def test_networks_see_the_middle_and_the_palette_sees_all() -> None:
    image = Image.new("RGB", (300, 900), BLACK)
    image.paste(WHITE, (0, 300, 300, 600))
    data = encoded(image)
    assert prepare_image(data, NETWORK).min() > 250
    seen = prepare_image(data, PALETTE)
    assert seen[:31].max() < 5 and seen[33:63].min() > 250 and seen[65:].max() < 5


def test_reduced_decoding_changes_little() -> None:
    """JPEGs are decoded at a fraction of their size: next to the same as decoding all of it."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (9, 6, 3), dtype=np.uint8)).resize(
        (600, 900), Image.Resampling.BICUBIC
    )
    jpeg = encoded(smooth, "JPEG", quality=92)
    whole = encoded(Image.open(io.BytesIO(jpeg)))
    for settings in (PALETTE, NETWORK):
        reduced, full = prepare_image(jpeg, settings).astype(int), prepare_image(whole, settings).astype(int)
        assert np.abs(reduced - full).mean() < 1.5


def bomb() -> bytes:
    """A file of few bytes that says it has 10^10 pixels."""
    return claiming(100_000, 100_000)


def claiming(width: int, height: int) -> bytes:
    """A PNG with the size in its head changed."""
    head = b"IHDR" + struct.pack(">II", width, height) + PNG[24:29]
    return PNG[:12] + head + struct.pack(">I", zlib.crc32(head)) + PNG[33:]


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "not an image"),
    "text": (lambda: b"hello", "not an image"),
    "HTML": (lambda: b"<!DOCTYPE html><html><body>404\n</body></html>", "not an image"),
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n", "not an image"),
    "zeros": (lambda: bytes(5000), "not an image"),
    "PNG head": (lambda: PNG[:20], "damaged"),
    "cut PNG": (lambda: encoded(halves(RED, BLUE, size=(300, 300)))[:-60], "damaged"),
    "cut JPEG": (lambda: encoded(halves(RED, BLUE, size=(300, 300)), "JPEG")[:900], "damaged"),
    "cut GIF": (lambda: ODD_IMAGES["GIF"][0][:-40], "damaged"),
    "wrong checksum": (lambda: PNG.replace(b"IDAT", b"IDAT\xff", 1), "damaged"),
    "bomb": (bomb, "too large"),
    "many pixels": (lambda: claiming(10_000, 10_000), "too large"),
}


@BOTH
@pytest.mark.parametrize("name", BROKEN)
def test_broken_images_are_named(name: str, settings: ImageSettings) -> None:
    make, category = BROKEN[name]
    with pytest.raises(PosterError) as caught:
        prepare_image(make(), settings)
    message = str(caught.value)
    assert message.partition(":")[0] == category and "\n" not in message


def test_random_damage_never_stops_the_reading() -> None:
    """Any byte of any format may be wrong: pixels of the right shape come back, or a named problem."""
    rng = np.random.default_rng(0)
    outcomes: Counter[str] = Counter()
    for name in ("JPEG", "RGB", "GIF", "WebP", "BMP", "16 bits TIFF", "transparent palette"):
        given = ODD_IMAGES[name][0]
        for _ in range(40):
            data = bytearray(given)
            for position in rng.integers(0, len(data), 3):
                data[position] = rng.integers(256)
            try:
                assert prepare_image(bytes(data), NETWORK).shape == (224, 224, 3)
                outcomes["shown"] += 1
            except PosterError as error:
                outcomes[str(error).partition(":")[0]] += 1
    assert outcomes["shown"] and outcomes["damaged"] and outcomes["not an image"]


def test_the_limit_on_pixels_is_a_setting() -> None:
    data = encoded(Image.new("L", (200, 100)))
    with pytest.raises(PosterError, match=r"too large: 200 x 100 pixels, content.image.max_megapixels is 0.01"):
        prepare_image(data, ImageSettings(max_megapixels=0.01))
    assert prepare_image(data, ImageSettings(max_megapixels=0.02)).shape == shape(PALETTE)
