"""Posters over HTTP from addresses that strangers may have written into the catalogue.

A host is resolved once, its addresses are checked, and connections go to exactly those: a name that resolves to
another address a moment later gains nothing. Redirects are followed here, each checked like the first address. Proxies
of the environment are not used: through them the address could not be checked.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, DecodeError, HTTPError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeout
from urllib3.util import Timeout, Url, make_headers, parse_url

from recsys_ray import __version__
from recsys_ray.content.config import ImageSettings
from recsys_ray.content.encoders import problems
from recsys_ray.content.encoders.problems import PosterError

MIB = 2**20
CHUNK = 64 * 1024
BACKOFF_S = 0.5
"""Wait before the second attempt; doubles with each further one."""
MOST_REDIRECTS = 3
GIVE_UP = 32
"""Attempts in a row that get no connection or no answer from a host, before its other posters are not tried."""
REDIRECT_CODES = frozenset({301, 302, 303, 307, 308})
GONE_CODES = frozenset({404, 410})
PORTS = {"http": 80, "https": 443}
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
HEADERS = {"User-Agent": f"recsys_ray/{__version__}", "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet; IPv6 forms of an IPv4 address count as that address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


class _PatientHTTP(HTTPConnection):
    """Waits for the whole head of an answer as long as for its first byte: a server that sends a header a second
    would otherwise hold the connection for hours."""

    def getresponse(self) -> Any:
        with _cut_off(self.sock, self.timeout):
            return super().getresponse()


class _PatientHTTPS(HTTPSConnection):
    def getresponse(self) -> Any:
        with _cut_off(self.sock, self.timeout):
            return super().getresponse()


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PatientHTTP


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PatientHTTPS


@contextmanager
def _cut_off(connected: socket.socket | None, seconds: Any) -> Iterator[None]:
    """Ends the reading of a socket after so many seconds."""
    cut = threading.Event()

    def end() -> None:
        cut.set()
        with suppress(OSError):
            if connected is not None:
                connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(float(seconds), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if cut.is_set():
            raise TimeoutError("no complete answer") from error
        raise
    finally:
        timer.cancel()
    if cut.is_set():  # a head that was cut off reads like a short one
        raise TimeoutError("no complete answer")


@dataclass(slots=True)
class _Host:
    """One server: the addresses that connections may go to, and one pool of connections for each."""

    pools: list[_HTTPPool | _HTTPSPool]
    public: bool
    header: str
    failures: int = 0
    """Attempts in a row that got no answer."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Downloads:
    """Downloads of one batch of posters by many threads; hosts and connections are shared, and let go at the end."""

    def __init__(self, settings: ImageSettings) -> None:
        self._settings = settings
        self._limit = int(settings.max_mib * MIB)
        self._hosts: dict[tuple[str, str, int], _Host | PosterError] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for host in self._hosts.values():
            for pool in [] if isinstance(host, PosterError) else host.pools:
                pool.close()

    def get(self, url: str) -> bytes:
        """The bytes behind an http(s) URL.

        Raises:
            PosterError: they can't be had, are too many, or stand at an address that must not be asked.
        """
        for attempt in range(self._settings.retries + 1):
            if attempt:
                time.sleep(BACKOFF_S * 2 ** (attempt - 1))
            try:
                return self._follow(url)
            except PosterError as error:
                if not error.transient or attempt == self._settings.retries:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _follow(self, url: str) -> bytes:
        """One attempt, through redirects."""
        was_public = False
        for _ in range(MOST_REDIRECTS + 1):
            parsed = _parsed(url)
            host = self._host(parsed)
            if not host.public and (was_public or not self._settings.private_hosts):
                how = "redirect from a public host to" if was_public else "set content.image.private_hosts for"
                raise PosterError(problems.PRIVATE, f"{how} {parsed.netloc}")
            was_public |= host.public
            answer = self._fetch(host, parsed)
            if isinstance(answer, bytes):
                return answer
            url = urljoin(url, answer)
        raise PosterError(problems.REDIRECTS, f"more than {MOST_REDIRECTS}")

    def _host(self, url: Url) -> _Host:
        """The server of a URL, resolved when it is met first."""
        scheme, name = url.scheme or "", (url.host or "").strip("[]")
        port = url.port or PORTS[scheme]
        host = self._hosts.get((scheme, name, port))
        if host is None:
            resolved = self._resolve(scheme, name, port, url)
            with self._lock:  # several threads may have asked: the first answer holds for all
                host = self._hosts.setdefault((scheme, name, port), resolved)
        if isinstance(host, PosterError):
            raise host
        return host

    def _resolve(self, scheme: str, name: str, port: int, url: Url) -> _Host | PosterError:
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            return PosterError(problems.NO_CONNECTION, f"{name}: {problems.excerpt(error)}")
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        public = [address for address in addresses if is_public(address)]
        # A name with both kinds is asked at its public addresses alone.
        pools = [self._pool(scheme, address, port, name) for address in public or addresses]
        return _Host(pools, bool(public), str(url.netloc))

    def _pool(self, scheme: str, address: str, port: int, name: str) -> _HTTPPool | _HTTPSPool:
        size = self._settings.threads
        if scheme == "http":
            return _HTTPPool(address, port, maxsize=size)
        return _HTTPSPool(
            address, port, maxsize=size, cert_reqs="CERT_REQUIRED", server_hostname=name, assert_hostname=name
        )

    def _fetch(self, host: _Host, url: Url) -> bytes | str:
        """The body of the answer, or the address that it redirects to."""
        if host.failures >= GIVE_UP:
            raise PosterError(problems.NO_CONNECTION, f"{host.header}: given up after {GIVE_UP} failures in a row")
        deadline = time.monotonic() + self._settings.timeout_s
        try:
            response = self._connect(host, url)
            host.failures = 0
            try:
                return self._answer(response, deadline)
            finally:
                response.close()  # a body that was read to its end has given its connection back before
        except (HTTPError, OSError) as error:
            problem = _named(error, host.header)
            with host.lock:
                host.failures += problem.transient
            raise problem from error

    def _connect(self, host: _Host, url: Url) -> urllib3.BaseHTTPResponse:
        """The head of the answer, from the first address that takes a connection."""
        headers = HEADERS | {"Host": host.header} | (make_headers(basic_auth=url.auth) if url.auth else {})
        for position, pool in enumerate(host.pools):
            try:
                return pool.urlopen(
                    "GET",
                    url.request_uri,
                    headers=headers,
                    timeout=Timeout(total=self._settings.timeout_s),
                    retries=False,
                    redirect=False,
                    assert_same_host=False,
                    preload_content=False,
                )
            except (NewConnectionError, ConnectTimeoutError):
                if position == len(host.pools) - 1:
                    raise
        raise AssertionError("a host has addresses")

    def _answer(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes | str:
        status = response.status
        if status in REDIRECT_CODES and response.headers.get("Location"):
            return str(response.headers["Location"])
        if status in GONE_CODES:
            raise PosterError(problems.NOT_FOUND, f"HTTP {status}")
        if status >= 500:
            raise PosterError(problems.SERVER_ERROR, f"HTTP {status}", transient=True)
        if status != 200:
            raise PosterError(problems.REFUSED, f"HTTP {status}")
        declared = response.headers.get("Content-Length", "")
        if declared.isdecimal() and int(declared) > self._limit:
            raise too_large(int(declared), self._settings)
        return self._body(response, deadline)

    def _body(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        body = bytearray()
        while chunk := response.read1(CHUNK, decode_content=True):
            body += chunk
            if len(body) > self._limit:
                raise too_large(len(body), self._settings)
            if time.monotonic() > deadline:
                raise PosterError(
                    problems.TIMED_OUT, f"{len(body):,} bytes in {self._settings.timeout_s} s", transient=True
                )
        return bytes(body)


def too_large(size: int, settings: ImageSettings) -> PosterError:
    return PosterError(problems.TOO_LARGE, f"{size:,} bytes or more, content.image.max_mib is {settings.max_mib:g}")


def _parsed(url: str) -> Url:
    try:
        parsed = parse_url(url)
    except HTTPError as error:
        raise PosterError(problems.UNSUPPORTED, "not a URL") from error
    if parsed.scheme not in PORTS or not parsed.host:
        raise PosterError(problems.UNSUPPORTED, f"{parsed.scheme or 'no scheme'}, not http or https with a host")
    return parsed


def _named(error: Exception, host: str) -> PosterError:
    """What went wrong below HTTP, without the address: it may carry a password."""
    if isinstance(error, SSLError):
        return PosterError(problems.BAD_CERTIFICATE, f"{host}: {problems.excerpt(error)}")
    if isinstance(error, NewConnectionError):
        return PosterError(
            problems.NO_CONNECTION, f"{host}: {problems.excerpt(error.__cause__ or error)}", transient=True
        )
    if isinstance(error, HTTPTimeout | TimeoutError):
        return PosterError(problems.TIMED_OUT, host, transient=True)
    if isinstance(error, DecodeError):
        return PosterError(problems.DAMAGED, f"{host}: {problems.excerpt(error)}")
    return PosterError(problems.NO_CONNECTION, f"{host}: {problems.excerpt(error)}", transient=True)
