"""Talking to a running server: the few calls that commands make, over Ollama's native API.

The owner of `requests` in this folder; it is imported on first use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..modelfile.errors import (
    BusyError,
    InputError,
    LadingError,
    NotAuthorisedError,
    NotFoundError,
    UnreachableError,
)
from .address import parse_address

if TYPE_CHECKING:
    from requests import Response

CONNECT_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 600.0
"""A model may have to be loaded before the first byte of an answer."""


class ServerUnreachable(UnreachableError):
    """No server answers at the address of the settings."""

    def __init__(self, address: str, cause: str) -> None:
        self.address = address
        super().__init__(
            f"connecting to the server at {address}: {cause}",
            hint="`lading serve` starts one; LADING_HOST says where to look",
        )


class AnswerBroken(LadingError):
    """The server ended an answer before it was complete."""

    def __init__(self, address: str) -> None:
        self.address = address
        super().__init__(
            f"reading the answer of the server at {address}: it broke off", hint="see the server's log"
        )


_KINDS: dict[int, type[LadingError]] = {
    400: InputError,
    401: NotAuthorisedError,
    403: NotAuthorisedError,
    404: NotFoundError,
    503: BusyError,
}


@dataclass(frozen=True, slots=True)
class ServerClient:
    """A server's address, ``http://host:port``, and what is shown to it."""

    url: str
    api_key: str = field(default="", repr=False)
    ca_file: Path | None = None
    """Authorities to trust in place of the usual ones."""
    client_cert: Path | None = None
    client_key: Path | None = None

    @classmethod
    def at(cls, address: str, **access: Any) -> ServerClient:
        """The server that listens at ``address``; one that listens everywhere is asked on loopback.

        Raises: BadAddress.
        """
        host, port = parse_address(address, default_port=11434)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        scheme = "https" if address.startswith("https://") else "http"
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        return cls(url, **access)

    def answers(self) -> bool:
        """Whether a server answers here, now. Raises: NotAuthorisedError where it wants another key."""
        try:
            self.call("GET", "/api/version", timeout=CONNECT_TIMEOUT_S)
        except NotAuthorisedError:
            raise  # a server is there: to go on without it would be a surprise
        except LadingError:
            return False
        return True

    def call(
        self, method: str, path: str, body: object = None, *, timeout: float = ANSWER_TIMEOUT_S
    ) -> dict[str, Any]:
        """One request, one JSON object back (empty for an empty reply).

        Raises: ServerUnreachable, or the error that the reply's status stands for, with the server's words.
        """
        with self._send(method, path, body, timeout=timeout, stream=False) as response:
            try:
                value = response.json() if response.content else {}
            except ValueError as error:
                raise ServerUnreachable(self.url, "it does not speak this protocol") from error
        return value if isinstance(value, dict) else {}

    def stream(self, path: str, body: object) -> Iterator[dict[str, Any]]:
        """One request, many JSON objects back. Closing the iterator closes the connection, which cancels.

        Raises: as `call`; AnswerBroken when the connection ends in the middle.
        """
        import requests

        with self._send("POST", path, body, timeout=ANSWER_TIMEOUT_S, stream=True) as response:
            try:
                for line in response.iter_lines(chunk_size=None):
                    if not line:
                        continue
                    value = json.loads(line)
                    if isinstance(value, dict) and "error" in value:
                        raise LadingError(str(value["error"]))
                    yield value
            except (requests.RequestException, ValueError) as error:
                raise AnswerBroken(self.url) from error

    def _send(self, method: str, path: str, body: object, *, timeout: float, stream: bool) -> Response:
        import requests

        session = requests.Session()
        session.trust_env = False  # no proxy, no .netrc: this is our own server
        if self.api_key:
            session.headers["Authorization"] = f"Bearer {self.api_key}"
        if self.ca_file is not None:
            session.verify = str(self.ca_file)
        if self.client_cert is not None:
            session.cert = (str(self.client_cert), str(self.client_key or self.client_cert))
        try:
            response = session.request(
                method, self.url + path, json=body, timeout=(CONNECT_TIMEOUT_S, timeout), stream=stream
            )
        except requests.exceptions.SSLError as error:
            raise ServerUnreachable(self.url, _tls_trouble(str(error))) from error
        except requests.ConnectionError as error:
            raise ServerUnreachable(self.url, _connection_trouble(error)) from error
        except (
            OSError
        ) as error:  # requests' own are OSErrors too, but these come from files that are not there
            if isinstance(error, requests.RequestException):
                raise ServerUnreachable(self.url, type(error).__name__) from error
            raise ServerUnreachable(self.url, str(error)) from error
        if response.status_code >= 400:
            raise _error_of(response)
        return response


def _connection_trouble(error: Exception) -> str:
    from urllib3.exceptions import NewConnectionError

    reason = getattr(error.args[0], "reason", None) if error.args else None
    if reason is None or isinstance(reason, NewConnectionError):
        aborted = bool(error.args) and type(error.args[0]).__name__ == "ProtocolError"
        return _HUNG_UP if aborted else "nothing listens there"
    return _HUNG_UP


_HUNG_UP = (
    "it hung up; one with TLS may want a certificate, which the settings client_cert and client_key name"
)


def _tls_trouble(text: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is of no authority that is trusted here; the setting ca_file names others"
    if "CERTIFICATE_REQUIRED" in text or "HANDSHAKE_FAILURE" in text:
        return "it wants a certificate of the client; the settings client_cert and client_key name one"
    return "TLS failed"


def _error_of(response: Response) -> LadingError:
    try:
        message = str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {response.status_code}"
    return _KINDS.get(response.status_code, LadingError)(message)
