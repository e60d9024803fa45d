"""The content of a message that comes in parts: texts and images. Each dialect has its own words for them."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from msgspec import structs

from ..runtime.protocol import Message
from .errors import BadField

_BREAKS = str.maketrans("", "", "\r\n")


class MessageParts:
    """Gathers parts in order. ``field`` is what errors name.

    Texts stand one below the other, images where they come: nothing stands between an image and the texts
    beside it (as llama.cpp's server has it).
    """

    def __init__(self, field: str) -> None:
        self._field = field
        self._content = ""
        self._images: list[bytes] = []
        self._places: list[int] = []

    @property
    def is_empty(self) -> bool:
        return not self._content and not self._images

    def add_text(self, text: str) -> None:
        after_image = self._places[-1:] == [len(self._content)]
        if self._content and not after_image:
            self._content += "\n"
        self._content += text

    def add_image(self, encoded: str) -> None:
        """Base64, or a ``data:`` URL with it.

        Raises: BadField.
        """
        self._images.append(image_of(encoded, self._field))
        self._places.append(len(self._content))

    def add_image_url(self, value: object) -> None:
        """A URL as OpenAI has it: alone, or in an object. Only ``data:`` URLs: nothing is fetched.

        Raises: BadField.
        """
        url = value.get("url") if isinstance(value, dict) else value
        if not isinstance(url, str) or not url.startswith("data:"):
            raise BadField(
                f"{self._field}: invalid image input: expected a data: URL; nothing is fetched",
                field=self._field,
            )
        self.add_image(url)

    def fields(self) -> dict[str, Any]:
        """Those of `protocol.Message`."""
        return {"content": self._content, "images": tuple(self._images), "image_at": tuple(self._places)}


def joined(first: Message, second: Message) -> Message:
    """Both as one message: content, images and calls; all else is as in ``first``."""
    content = "\n".join(text for text in (first.content, second.content) if text)
    offset = len(content) - len(second.content)
    return structs.replace(
        first,
        content=content,
        thinking=first.thinking + second.thinking,
        images=first.images + second.images,
        image_at=first.image_at + tuple(at + offset for at in second.image_at),
        tool_calls=first.tool_calls + second.tool_calls,
    )


def image_of(encoded: str, field: str) -> bytes:
    """The bytes of a file in base64, with or without a ``data:`` URL around it.

    Raises: BadField.
    """
    kind, comma, rest = encoded.partition(",") if encoded.startswith("data:") else ("", "", encoded)
    try:
        if comma and not kind.endswith(";base64"):
            raise ValueError(kind)
        data = base64.b64decode(rest.translate(_BREAKS), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadField(f"{field}: invalid image input: expected base64", field=field) from error
    if not data:
        raise BadField(f"{field}: invalid image input: it is empty", field=field)
    return data
