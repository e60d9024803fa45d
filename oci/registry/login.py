"""Logging in: finding out whether a registry, or its token service, accepts a user and password.

Nothing is written here; `credential_store.py` keeps what this returns. Credentials go where the rules at the
top of `auth.py` let them go: to the registry's own origin, or to a token service that is bound to it.

Source: OCI distribution-spec 1.1, ``GET /v2/``; the Docker token specification, whose ``offline_token=true``
asks for a refresh token, which Docker's files call an identity token.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from ...modelfile.errors import LadingError, NotAuthorisedError
from ..canonical import strict_json
from .auth import TokenRequest
from .challenge import Challenge, parse_challenges
from .credentials import Credential, Found
from .errors import RegistryError, RegistryUnsafe
from .origin import BadUrl, Origin, resolve
from .reply import refusal
from .requester import RegistryRequest, Requester
from .settings import RegistrySettings
from .transport import Response, header_values, read_body

MAX_ANSWER = 1 << 20
"""Bytes of a token service's answer."""

GIVEN = "this login"
"""What errors call the source of the credentials that were typed."""


@dataclass(frozen=True, slots=True)
class Login:
    """What to keep. ``verified`` is False where the registry lets everybody in, and so cannot say."""

    credential: Credential
    verified: bool


class LoginRefused(NotAuthorisedError):
    """The registry, or its token service, does not take this user and password. `status` is HTTP's."""

    def __init__(self, registry: str, status: int) -> None:
        super().__init__(
            f"logging in at {registry}: the user name or the password was refused (status {status})",
            hint="check both; many registries want an access token in place of the password",
        )
        self.registry = registry
        self.status = status


def log_in(
    requester: Requester, settings: RegistrySettings, registry: Origin, username: str, password: str
) -> Login:
    """Shows the user and password to the registry, and returns what proves them from now on: an identity
    token where the token service gives one, else the password.

    Raises: LoginRefused where they are refused; RegistryUnsafe where they would have to be shown to a
        stranger; RegistryError, RegistryUnreachable, RegistryBusy.
    """
    given = Credential(username=username, secret=password, source=GIVEN)
    response = requester.send(_version_check(registry))
    response.close()
    if response.status_code == 200:
        return Login(given, verified=False)
    if response.status_code != 401:
        raise refusal(response, "logging in", Found(), registry=registry)
    challenges = parse_challenges(header_values(response, "WWW-Authenticate"))
    bearer = next((c for c in challenges if c.scheme == "bearer" and "realm" in c.parameters), None)
    if bearer is not None:
        header, kept = _exchange(requester, settings, registry, bearer, given)
    elif any(challenge.scheme == "basic" for challenge in challenges):
        header, kept = given.basic(), given
    else:
        raise RegistryError(registry.netloc, "logging in", "it asks for a kind of login that is not known")
    response = requester.send(_version_check(registry, header))
    if response.status_code != 200:
        raise _refused(response, registry, "logging in")
    response.close()
    return Login(kept, verified=True)


def _version_check(registry: Origin, authorization: str | None = None) -> RegistryRequest:
    headers = {"Authorization": authorization} if authorization is not None else {}
    return RegistryRequest(method="GET", url=f"{registry}/v2/", headers=headers, authorised=False)


def _exchange(
    requester: Requester,
    settings: RegistrySettings,
    registry: Origin,
    challenge: Challenge,
    given: Credential,
) -> tuple[str, Credential]:
    """A token for the credentials, as a header value, and the credential to keep."""
    realm = _checked_realm(settings, registry, challenge.parameters["realm"])
    doing = f"asking {Origin.of(realm).netloc} for a token"
    query = {"account": given.username, "client_id": "lading", "offline_token": "true"}
    if "service" in challenge.parameters:
        query["service"] = challenge.parameters["service"]
    joint = "&" if urlsplit(realm).query else "?"
    headers = {"Accept": "application/json", "Authorization": given.basic()}
    url = f"{realm}{joint}{urlencode(query)}"
    response = requester.fetch_token(TokenRequest(registry=registry, method="GET", url=url, headers=headers))
    if response.status_code != 200:
        raise _refused(response, registry, doing)
    answer = _read_object(response, registry, doing)
    token = answer.get("token") or answer.get("access_token")
    if not _is_token(token):
        raise RegistryError(registry.netloc, doing, "expected a token in the answer")
    refresh = answer.get("refresh_token")
    if not isinstance(refresh, str) or not _is_token(refresh):
        return f"Bearer {token}", given
    return f"Bearer {token}", Credential(
        username=given.username, secret=refresh, identity_token=True, source=GIVEN
    )


def _checked_realm(settings: RegistrySettings, registry: Origin, url: str) -> str:
    """The token service's URL. Raises: RegistryUnsafe where credentials must not go there."""
    try:
        service = Origin.of(url)
    except BadUrl as error:
        raise RegistryUnsafe(
            registry.netloc, "logging in", f"a token service without usable URL ({error})"
        ) from None
    plain = service.scheme == "http"
    if plain and (registry.scheme == "https" or not settings.allows_plain_http(service)):
        raise RegistryUnsafe(registry.netloc, "logging in", f"a token service without encryption, {service}")
    if not settings.trusts_realm(registry, service):
        raise RegistryUnsafe(
            registry.netloc,
            "logging in",
            f"its token service is on another host, {service.netloc}, which is not known to belong to it; "
            "the password was not sent",
            hint=f"if it does, say so in the settings: token_services, {registry.netloc}={service.netloc}",
        )
    return resolve(url, url)


def _refused(response: Response, registry: Origin, doing: str) -> LadingError:
    status = response.status_code
    if status in {400, 401, 403}:
        response.close()
        return LoginRefused(registry.netloc, status)
    return refusal(response, doing, Found(), registry=registry)


def _read_object(response: Response, registry: Origin, doing: str) -> dict[str, object]:
    data = read_body(response, MAX_ANSWER, doing)
    try:
        answer = strict_json(data, limit=MAX_ANSWER)
    except LadingError:
        answer = None  # no part of it is shown: it may hold a token
    if not isinstance(answer, dict):
        raise RegistryError(registry.netloc, doing, "expected a JSON object as answer")
    return answer


def _is_token(value: object) -> bool:
    """Whether it may stand in a header: visible ASCII. Source: RFC 9110, 5.5."""
    return isinstance(value, str) and 0 < len(value) <= 65536 and all("!" <= c <= "~" for c in value)
