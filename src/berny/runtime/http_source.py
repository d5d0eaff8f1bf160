"""A source behind HTTP: what a person has to mend is told from what may pass, and no message holds a key or a password."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, quote_plus, urlsplit

import requests
import urllib3
from requests import exceptions as failures

from berny.runtime.source import Refused, RetryLater, Unauthorized

DAY_SECONDS = 86400.0
SAID_BYTES = 64 << 10
SAID_CHARACTERS = 300
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
"""Debian's: what update-ca-certificates writes."""
TIMES_OF_A_CERTIFICATE = (9, 10)
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED: a clock is set, a certificate renewed."""


class HttpSource:
    """Polls one URL with an API key. A pipeline's own source derives from it and says what its settings are called.

    Args:
        base_url: the API's address.
        path: of what is asked, below that.
        query: the parameters of the request.
        api_key: the key. Requests carry it where ``headers`` and ``secret_query`` put it; no message has it.
        headers: of the request.
        secret_query: parameters that no message shows.
        timeout: seconds to connect, seconds to wait for more.
        proxy: address of a proxy, or empty; the environment's are not asked.

    Raises:
        Refused: an address or the key can't be used; nothing was asked.
    """

    prefix: ClassVar[str]
    """Of its settings' names: ``PRIM`` for ``PRIM_BASE_URL``, ``PRIM_API_KEY`` and ``PRIM_PROXY``."""
    request_settings: ClassVar[str]
    """The settings to look at where the source says that the request is wrong."""
    key_advice: ClassVar[str]
    """What is to be done where the key is refused."""

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
        self._url = f"{_address(f'{self.prefix}_BASE_URL', base_url).rstrip('/')}/{path.lstrip('/')}"
        self._query = {**query, **(secret_query or {})}
        self._asked = _shown(f"{self._url}?{'&'.join(f'{name}={value}' for name, value in query.items())}")
        self._timeout = timeout
        self._key = _fit_key(f"{self.prefix}_API_KEY", api_key)
        self._session = requests.Session()
        self._session.headers.update({"Accept": "application/json", **(headers or {})})
        self._session.trust_env = False
        self._session.verify = _trusted()
        if proxy:
            self._session.proxies = dict.fromkeys(("http", "https"), _address(self._proxy_setting, proxy))
            self._asked += f" through the proxy {_shown(proxy)}"

    def poll(self) -> bytes:
        """Return the body of a response that came whole, with status 200.

        Raises:
            Unauthorized: the key is refused (401, 403).
            Refused: the source or a proxy says that the request is wrong (other 3xx and 4xx), or its certificate is not
                trusted.
            RetryLater: a limit (429), an error of the server, a time-out, or a response cut short.
        """
        try:
            # A redirect would take the key along, to whatever host it names.
            with self._session.get(
                self._url, params=self._query, timeout=self._timeout, stream=True, allow_redirects=False
            ) as response:
                if response.status_code != 200:
                    raise self._refusal(response)
                return self._whole(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._failure(error) from None

    def explain(self, body: str) -> str:
        """Return what a response with another status says; a source that has a form for errors overrides it."""
        return body

    def _message(self, what: str) -> str:
        message = f"{self._asked} {what}"
        for form in (self._key, quote(self._key), quote_plus(self._key)):
            message = message.replace(form, "***")
        return message

    def _refusal(self, response: requests.Response) -> Exception:
        status = response.status_code
        where = f" to {_shown(response.headers['Location'])}" if "Location" in response.headers else ""
        text = " ".join(self.explain(next(response.iter_content(SAID_BYTES), b"").decode(errors="replace")).split())
        said = "".join(letter for letter in text if letter.isprintable())[:SAID_CHARACTERS]
        message = self._message(f"answers {status}{where}" + (f": {said}" if said else ""))
        if status in (401, 403):
            return Unauthorized(f"{message}. {self.key_advice}, then start the pipeline again")
        if status in (408, 425, 429) or not 300 <= status < 500:
            return RetryLater(message, _retry_after(response))
        what = self._proxy_setting if status == 407 else self.request_settings
        return Refused(f"{message}. Correct {what}, run site.yml, then start the pipeline again")

    def _failure(self, error: Exception) -> Exception:
        root = _root(error)
        message = self._message(f"failed: {type(root).__name__}: {root}")
        if isinstance(root, ssl.SSLCertVerificationError) and root.verify_code not in TIMES_OF_A_CERTIFICATE:
            return Refused(
                f"{message}. If a proxy or a CA of your own is between, put its certificate into "
                "/usr/local/share/ca-certificates, run update-ca-certificates there, then start the pipeline again"
            )
        if isinstance(error, failures.ProxyError) and re.search(r"Tunnel connection failed: 4\d\d", str(root)):
            correct = f"Correct {self._proxy_setting} or the proxy"
            return Refused(f"{message}. {correct}, run site.yml, then start the pipeline again")
        if isinstance(error, failures.InvalidURL | failures.InvalidSchema | failures.InvalidHeader):
            return Refused(f"{message}. Correct {self.prefix}_BASE_URL or {self._proxy_setting}")
        return RetryLater(message)

    def _whole(self, response: requests.Response) -> bytes:
        response.raw.enforce_content_length = True
        body = b"".join(response.iter_content(1 << 16))
        length = response.headers.get("Content-Length")
        if length and "Content-Encoding" not in response.headers and len(body) < int(length):
            raise RetryLater(self._message(f"was cut short: {len(body)} of {length} bytes"))
        return body


def _shown(url: str) -> str:
    """Return an address without the user and password that it may hold."""
    return re.sub(r"//[^?#]*@", "//", url)


def _address(name: str, url: str) -> str:
    """Return an address that can be asked.

    Raises:
        Refused: it can't; the message has it without a password.
    """
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit or set(url) & set(" \r\n\t"):
        raise Refused(f"{name} is {_shown(url)!r}: it has to be http:// or https://, a host, and a port if it has one")
    return url


def _fit_key(name: str, key: str) -> str:
    """Return a key that can be sent.

    Raises:
        Unauthorized: it can't.
    """
    if not key:
        raise Unauthorized(f"{name} is empty")
    odd = re.search("^ |[^ -~]", key)
    if odd:
        raise Unauthorized(
            f"{name} can't be sent: character {odd.start() + 1} of {len(key)} is a line break, or another that "
            f"no header can hold. Give the key again without it: run site.yml with {name} set"
        )
    return key


def _trusted() -> str | bool:
    """Return the certificates that this machine trusts: an operator's own CA is among them, as requests' own has it not."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or (str(BUNDLE) if BUNDLE.exists() else paths.capath) or True


def _root(error: BaseException) -> BaseException:
    """Return the failure that a library's ones are about."""
    kinds = (OSError, urllib3.exceptions.HTTPError)
    while isinstance(inner := error.__cause__ or error.__context__, kinds):
        error = inner
    return error


def _retry_after(response: requests.Response) -> float | None:
    try:
        return min(DAY_SECONDS, max(0.0, float(response.headers["Retry-After"])))
    except (KeyError, ValueError):
        return None
