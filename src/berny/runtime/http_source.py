"""A source behind HTTP. Errors that need a person are distinguished from transient ones; no message contains a secret."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, quote_plus, urlsplit

import requests
import urllib3
from requests import exceptions as failures

from berny.runtime.source import NotFound, Refused, RetryLater, Unauthorized

DAY_SECONDS = 86400.0
SAID_BYTES = 64 << 10
SAID_CHARACTERS = 300
BODY_BYTES = 64 << 20
BODY_SECONDS = 300
"""Of one response: a proxy may send without end."""
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
"""Debian's: what update-ca-certificates writes."""
TIMES_OF_A_CERTIFICATE = (9, 10)
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED. These are transient: clocks are corrected and
certificates renewed."""


class HttpSource:
    """Polls one URL with an API key. A pipeline's source derives from it and sets the names of its settings.

    A source that needs several requests per poll overrides ``poll`` and calls ``get``.

    Args:
        base_url: the API's address.
        path: the path below it.
        query: the parameters of the request.
        api_key: the key, which ``headers`` or ``secret_query`` contain as well; messages mask it.
        headers: the headers of the request.
        secret_query: further parameters, which no message shows.
        timeout: seconds to connect, seconds to wait for data.
        proxy: address of a proxy, or empty; proxies in the environment are ignored.

    Raises:
        Refused: an address or the key can't be used; no request was made.
    """

    prefix: ClassVar[str]
    """Prefix of its settings: ``PRIM`` for ``PRIM_BASE_URL``, ``PRIM_API_KEY`` and ``PRIM_PROXY``."""
    request_settings: ClassVar[str]
    """The settings to correct if the source rejects the request."""
    key_advice: ClassVar[str]
    """What to do if the key is refused."""

    def __init__(
        self,
        base_url: str,
        path: str,
        query: Mapping[str, str],
        api_key: str,
        *,
        headers: Mapping[str, str] | None = None,
        secret_query: Mapping[str, str] | None = None,
        timeout: tuple[float, float] = (5, 20),
        proxy: str = "",
    ) -> None:
        self._proxy_setting = f"{self.prefix}_PROXY"
        self._base = _address(f"{self.prefix}_BASE_URL", base_url).rstrip("/")
        self._path, self._query, self._secret_query = path, query, secret_query or {}
        self._timeout = timeout
        self._key = _fit_key(f"{self.prefix}_API_KEY", api_key)
        self._session = requests.Session()
        self._session.headers.update({"Accept": "application/json", **(headers or {})})
        self._session.trust_env = False
        self._session.verify = _trusted()
        self._through = ""
        if proxy:
            self._session.proxies = dict.fromkeys(("http", "https"), _address(self._proxy_setting, proxy))
            self._through = f" through the proxy {_shown(proxy)}"

    def poll(self) -> bytes:
        """Return the body of one response; raises what ``get`` raises."""
        return self.get(self._path, self._query)

    def get(self, path: str, query: Mapping[str, str]) -> bytes:
        """Return the body of a complete response with status 200.

        Raises:
            Unauthorized: the key is refused (401, 403).
            NotFound: the resource does not exist (404).
            Refused: the source or a proxy rejects the request (other 3xx and 4xx), or its certificate is not trusted.
            RetryLater: a rate limit (429), a server error, a timeout, or a response that is truncated or has no end.
        """
        url = f"{self._base}/{path.lstrip('/')}"
        asked = _shown(f"{url}?{'&'.join(f'{name}={value}' for name, value in query.items())}") + self._through
        try:
            # Following a redirect would send the key to another host.
            with self._session.get(
                url, params={**query, **self._secret_query}, timeout=self._timeout, stream=True, allow_redirects=False
            ) as response:
                if response.status_code != 200:
                    raise self._refusal(asked, response)
                return self._complete(asked, response)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._failure(asked, error) from None

    def explain(self, body: str) -> str:
        """Return the error message in a response's body; a source with a structured error format overrides this."""
        return body

    def _message(self, asked: str, what: str) -> str:
        message = f"{asked} {what}"
        for form in (self._key, quote(self._key), quote_plus(self._key)):
            message = message.replace(form, "***")
        return message

    def _refusal(self, asked: str, response: requests.Response) -> Exception:
        status = response.status_code
        where = f" to {_shown(response.headers['Location'])}" if "Location" in response.headers else ""
        text = " ".join(self.explain(next(response.iter_content(SAID_BYTES), b"").decode(errors="replace")).split())
        said = "".join(letter for letter in text if letter.isprintable())[:SAID_CHARACTERS]
        message = self._message(asked, f"returned {status}{where}" + (f": {said}" if said else ""))
        if status in (401, 403):
            return Unauthorized(f"{message}. {self.key_advice}, then start the pipeline again")
        if status in (408, 425, 429) or not 300 <= status < 500:
            return RetryLater(message, _retry_after(response))
        what = self._proxy_setting if status == 407 else self.request_settings
        refused = NotFound if status == 404 else Refused
        return refused(f"{message}. Correct {what}, run site.yml, then start the pipeline again")

    def _failure(self, asked: str, error: Exception) -> Exception:
        root = _root(error)
        message = self._message(asked, f"failed: {type(root).__name__}: {root}")
        if isinstance(root, ssl.SSLCertVerificationError) and root.verify_code not in TIMES_OF_A_CERTIFICATE:
            return Refused(
                f"{message}. If a proxy or a private CA is involved, put its certificate into "
                "/usr/local/share/ca-certificates on this node, run update-ca-certificates, then start the pipeline again"
            )
        if isinstance(error, failures.ProxyError) and re.search(r"Tunnel connection failed: 4\d\d", str(root)):
            correct = f"Correct {self._proxy_setting} or the proxy"
            return Refused(f"{message}. {correct}, run site.yml, then start the pipeline again")
        if isinstance(error, failures.InvalidURL | failures.InvalidSchema | failures.InvalidHeader):
            return Refused(f"{message}. Correct {self.prefix}_BASE_URL or {self._proxy_setting}")
        return RetryLater(message)

    def _complete(self, asked: str, response: requests.Response) -> bytes:
        response.raw.enforce_content_length = True
        body, deadline = bytearray(), time.monotonic() + BODY_SECONDS
        for part in response.iter_content(1 << 16):
            body += part
            if len(body) > BODY_BYTES:
                raise RetryLater(self._message(asked, f"returned more than {BODY_BYTES >> 20} MiB"))
            if time.monotonic() > deadline:
                raise RetryLater(self._message(asked, f"was not complete after {BODY_SECONDS} s: {len(body)} bytes"))
        length = response.headers.get("Content-Length")
        if length and "Content-Encoding" not in response.headers and len(body) < int(length):
            raise RetryLater(self._message(asked, f"was cut short: {len(body)} of {length} bytes"))
        return bytes(body)


def _shown(url: str) -> str:
    """Return an address without the user and password that it may hold."""
    return re.sub(r"//[^?#]*@", "//", url)


def _address(name: str, url: str) -> str:
    """Return an address if it is valid.

    Raises:
        Refused: it is not; the message shows it without a password.
    """
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit or set(url) & set(" \r\n\t"):
        raise Refused(f"{name} is {_shown(url)!r}: it has to be http:// or https://, a host, and optionally a port")
    return url


def _fit_key(name: str, key: str) -> str:
    """Return a key if it can be sent in a header.

    Raises:
        Unauthorized: it can't.
    """
    if not key:
        raise Unauthorized(f"{name} is empty")
    odd = re.search("^ |[^ -~]", key)
    if odd:
        raise Unauthorized(
            f"{name} can't be sent: character {odd.start() + 1} of {len(key)} is a line break, or another "
            f"that no header may contain. Set {name} without it and run site.yml"
        )
    return key


def _trusted() -> str | bool:
    """Return the machine's trust store: it has an operator's own CA, which the bundle of ``requests`` has not."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or (str(BUNDLE) if BUNDLE.exists() else paths.capath) or True


def _root(error: BaseException) -> BaseException:
    """Return the innermost cause of a library's exception."""
    kinds = (OSError, urllib3.exceptions.HTTPError)
    while isinstance(inner := error.__cause__ or error.__context__, kinds):
        error = inner
    return error


def _retry_after(response: requests.Response) -> float | None:
    try:
        return min(DAY_SECONDS, max(0.0, float(response.headers["Retry-After"])))
    except (KeyError, ValueError):
        return None
