"""Mail, by Python's own library: subject and text of each message; what is quoted, signed or attached is left out."""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage

from embedsmith.prepare.documents.blocks import Block, heading, line_of
from embedsmith.prepare.documents.html import read_html
from embedsmith.prepare.documents.limits import Unreadable
from embedsmith.prepare.documents.prose import read_prose

_BEGINS = re.compile(rb"^From \S+.*\d{4}.*$", re.MULTILINE)
_REPLY = re.compile(r"^(?:(?:re|fwd?|aw|wg|sv|antw)\s*:\s*|\[[\w .-]{1,40}\]\s*)+", re.IGNORECASE)
_QUOTED = re.compile(r"^(?:>.*|.{0,200}\bwrote:|-{2,} ?Original Message ?-{2,})$\n?", re.MULTILINE)
_SIGNATURE = re.compile(r"^-- $.*", re.MULTILINE | re.DOTALL)


def read_message(content: bytes) -> list[Block]:
    """Return the blocks of one message under its subject."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    if not message.keys():
        raise Unreadable("no message: it has no header")
    assert isinstance(message, EmailMessage)
    subject = _REPLY.sub("", line_of(str(message.get("subject", ""))))
    own = _text_of(message)
    return [*([heading(subject, 1)] if subject and own else []), *own]


def read_mbox(content: bytes) -> list[Block]:
    """Return the blocks of all messages of a mailbox."""
    return [block for message in _messages(content) for block in read_message(message)]


def _messages(content: bytes) -> Iterator[bytes]:
    starts = [found.end() + 1 for found in _BEGINS.finditer(content)]
    if not starts:
        raise Unreadable('no mailbox: no line begins with "From "')
    ends = [content.rfind(b"\nFrom ", 0, start) for start in starts[1:]]
    for start, end in zip(starts, [*ends, len(content)], strict=True):
        if content[start:end].strip():
            yield content[start:end]


def _text_of(message: EmailMessage) -> list[Block]:
    """Return the blocks of a message's text: plain where it has that, else HTML."""
    body = message.get_body(preferencelist=("plain", "html"))
    if body is None:
        return []
    payload = body.get_payload(decode=True)
    assert isinstance(payload, bytes)
    try:
        text = payload.decode(body.get_content_charset() or "utf-8", "replace")
    except LookupError:  # an encoding that is none
        text = payload.decode("utf-8", "replace")
    text = text.replace("\r\n", "\n")
    if body.get_content_type() == "text/html":
        return read_html(text)
    return read_prose(_SIGNATURE.sub("", _QUOTED.sub("", text)))
