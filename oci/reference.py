"""References: the names of models.

    reference  = [ host "/" ] path [ ":" tag ] [ "@" digest ]
    host       = name-or-ip [ ":" port ]      it has a dot or a port, or is "localhost"
    path       = component *( "/" component )
    component  = ALNUM-or-"_" [ *( ALNUM / "_" / "." / "-" ) ALNUM-or-"_" ]    no ".."
    tag        = ALNUM-or-"_" *127( ALNUM / "_" / "." / "-" )

    llama3.2                                 registry.ollama.ai/library/llama3.2:latest
    user/m:q4                                registry.ollama.ai/user/m:q4
    hf.co/org/M-GGUF:Q4_K_M                  as written
    localhost:5000/team/sub/m@sha256:…       as written

The grammar is Docker's (distribution/reference), which decides what is a host, with two departures:
upper case and a leading "_" are allowed in the path, since Ollama and hf.co have such names. Ollama's
limit of three levels does not apply. Text that looks like a URL, a file path or a Windows drive is refused:
it is a mistake, or an attack, far more often than a name.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from .digest import Digest
from .errors import BadDigest, BadReference, quoted

DEFAULT_REGISTRY = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

MAX_COMPONENT = 128
MAX_REPOSITORY = 255
_MAX_TEXT = 1024

_COMPONENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LABEL = r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?P<name>{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DRIVE = re.compile(r"[A-Z]:")


@dataclass(frozen=True, slots=True)
class Reference:
    """A registry, a repository in it, and a tag or a digest or both. The registry is in lower case.

    >>> str(Reference.parse("llama3.2"))
    'registry.ollama.ai/library/llama3.2:latest'
    >>> Reference.parse("registry.ollama.ai/library/llama3.2:latest").display
    'llama3.2:latest'
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        shown = _shown(str(self))
        _require_host(self.registry, shown)
        _require_path(self.repository, shown)
        if self.tag is None and self.digest is None:
            raise BadReference(shown, "it needs a tag or a digest")
        if self.tag is not None and not _TAG.fullmatch(self.tag):
            raise BadReference(shown, "a tag is 1 to 128 letters, digits, '_', '.' and '-'")

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        default_registry: str = DEFAULT_REGISTRY,
        default_namespace: str = DEFAULT_NAMESPACE,
    ) -> Reference:
        """The reference written as ``text``; the inverse of ``str`` and of ``display``.

        Without host, ``default_registry`` is meant, and there a single component is in
        ``default_namespace`` (none where that is empty). Without tag and digest, the tag is ``latest``.

        Raises: BadReference.
        """
        _refuse_lookalikes(text)
        shown = _shown(text)
        name, tag, digest = _split(text, shown)
        registry, slash, path = name.partition("/")
        if not slash or not _is_host(registry):
            registry, path = default_registry, name
            if default_namespace and "/" not in path:
                path = f"{default_namespace}/{path}"
        if tag is None and digest is None:
            tag = DEFAULT_TAG
        try:
            return cls(registry.lower(), path, tag, digest)
        except BadReference as error:  # say it with the text that the user gave
            raise BadReference(shown, error.message.split(": ", 1)[1], hint=error.hint) from None

    def __str__(self) -> str:
        return f"{self.name}{self._suffix}"

    @property
    def name(self) -> str:
        """``registry/repository``: what all tags and digests of one model share."""
        return f"{self.registry}/{self.repository}"

    @property
    def identifier(self) -> str:
        """What a registry is asked for: the digest where there is one, else the tag."""
        return str(self.digest) if self.digest is not None else str(self.tag)

    @property
    def display(self) -> str:
        """The form for people, by Ollama's rules: no default host, and there no default namespace."""
        return self.shortened(DEFAULT_REGISTRY, DEFAULT_NAMESPACE)

    def shortened(self, default_registry: str, default_namespace: str) -> str:
        """The shortest form that ``parse`` with the same defaults reads back as this reference."""
        if self.registry != default_registry.lower():
            return str(self)
        short = self.repository
        if default_namespace:
            short = short.removeprefix(f"{default_namespace}/")
        for candidate in (short, self.repository):
            text = f"{candidate}{self._suffix}"
            try:
                meant = Reference.parse(
                    text, default_registry=default_registry, default_namespace=default_namespace
                )
            except BadReference:
                continue
            if meant == self:
                return text
        return str(self)

    @property
    def familiar_key(self) -> str:
        """Equal for references that differ in case only: they name the same model, as for Ollama."""
        return str(self).lower()

    def with_tag(self, tag: str) -> Reference:
        """This reference with another tag and no digest."""
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Reference:
        """This reference pinned to ``digest``, without tag."""
        return replace(self, tag=None, digest=digest)

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return tag + (f"@{self.digest}" if self.digest is not None else "")


def _split(text: str, shown: str) -> tuple[str, str | None, Digest | None]:
    """``text`` as name, tag and digest, of which only the digest is checked."""
    name, at, digest_text = text.partition("@")
    digest: Digest | None = None
    if at:
        try:
            digest = Digest.parse(digest_text)
        except BadDigest as error:
            raise BadReference(shown, "expected a digest, sha256:<64 hex digits>, after '@'") from error
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    return f"{head}{slash}{last}", tag if colon else None, digest


def _is_host(first: str) -> bool:
    return "." in first or ":" in first or first.lower() == "localhost"


def _require_host(registry: str, shown: str) -> None:
    match = _HOST.fullmatch(registry)
    if match is None or len(registry) > 255:
        raise BadReference(shown, f"{_shown(registry)} is not a registry host")
    name, port = match["name"], match["port"]
    if port is not None and not 1 <= int(port) <= 65535:
        raise BadReference(shown, f"port {port} is out of range")
    if name.startswith("["):
        try:
            ipaddress.IPv6Address(name[1:-1])
        except ValueError:
            raise BadReference(shown, f"{_shown(name)} is not an IPv6 address") from None
    if not _is_host(registry):
        raise BadReference(shown, "a registry host has a dot or a port, or is localhost")


def _require_path(repository: str, shown: str) -> None:
    if len(repository) > MAX_REPOSITORY:
        raise BadReference(shown, f"the name is longer than {MAX_REPOSITORY} characters")
    for component in repository.split("/"):
        if not component:
            raise BadReference(shown, "a part of the name is empty")
        if len(component) > MAX_COMPONENT:
            raise BadReference(shown, f"a part of the name is longer than {MAX_COMPONENT} characters")
        if not _COMPONENT.fullmatch(component) or ".." in component:
            raise BadReference(shown, f"{_shown(component)} is not a valid part of a name")


def _refuse_lookalikes(text: str) -> None:
    shown = _shown(text)
    if len(text) > _MAX_TEXT:
        raise BadReference(shown, f"longer than {_MAX_TEXT} characters")
    if not text:
        raise BadReference(shown, "it is empty")
    if scheme := _SCHEME.match(text):
        raise BadReference(shown, "a URL is not a name", hint=f"leave out {scheme[0]}")
    if "?" in text or "#" in text:
        raise BadReference(shown, "a URL is not a name")
    if "\\" in text or _DRIVE.match(text):
        raise BadReference(shown, "a Windows path is not a name")
    if text.startswith(("./", "../", "/", "~")):
        raise BadReference(shown, "a file path is not a name")


def _shown(text: str) -> str:
    """``text`` for a message, without what may be a password or a token in it."""
    text = text.partition("?")[0]
    head, at, tail = text.rpartition("@")
    if at and (not tail.startswith(("sha256:", "sha512:")) or "@" in head):
        text = f"***@{tail}"
    return quoted(text)
