"""What a registry says when it says no, as our errors.

Source: OCI distribution-spec 1.1, error codes: ``{"errors": [{"code", "message", "detail"}]}``. The body
may as well be HTML, or anything: it is bounded, and what cannot be read is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...modelfile.errors import LadingError
from ..canonical import strict_json
from ..errors import quoted
from .credentials import Found
from .errors import RegistryDenied, RegistryError
from .origin import Origin
from .transport import Response, read_body

MAX_ERROR_BODY = 64 * 1024

_CODE = re.compile(r"[A-Z][A-Z_]{0,63}")


@dataclass(frozen=True, slots=True)
class Complaint:
    """The first few errors of an OCI error body."""

    codes: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join(self.messages)


def read_complaint(response: Response) -> Complaint:
    """The errors in the body, which is consumed; none where it holds none. Never raises."""
    try:
        value = strict_json(read_body(response, MAX_ERROR_BODY, "reading an error"), limit=MAX_ERROR_BODY)
    except LadingError:
        return Complaint()
    finally:
        response.close()
    errors = value.get("errors") if isinstance(value, dict) else None
    codes: list[str] = []
    messages: list[str] = []
    if isinstance(value, dict) and isinstance(value.get("error"), str):  # Hugging Face's own shape
        messages.append(quoted(value["error"], limit=300))
    for entry in errors[:5] if isinstance(errors, list) else []:
        if not isinstance(entry, dict):
            continue
        code, message = entry.get("code"), entry.get("message")
        if isinstance(code, str) and _CODE.fullmatch(code):
            codes.append(code)
        if isinstance(message, str) and message:
            messages.append(quoted(message, limit=300))
    return Complaint(tuple(codes), tuple(messages))


def refusal(response: Response, doing: str, found: Found, *, registry: Origin) -> LadingError:
    """The error for an answer that is not the hoped-for one; consumes the response.

    found: the credentials that were used, for 401 and 403.
    """
    status = response.status_code
    complaint = read_complaint(response)
    said = f" ({complaint})" if complaint.messages else ""
    if status in {401, 403}:
        credential = found.credential
        return RegistryDenied(
            registry.netloc,
            doing,
            f"access denied, status {status}{said}",
            status=status,
            tried=credential.source if credential is not None else None,
            notes=found.notes,
        )
    hint = "the registry does not take this; its log may say why" if status == 413 else None
    return RegistryError(
        registry.netloc, doing, f"status {status}{said}", status=status, codes=complaint.codes, hint=hint
    )
