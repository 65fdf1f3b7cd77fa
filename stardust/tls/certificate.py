"""What a certificate says: names, issuer, kind of key, end (RFC 5280), out of PEM and DER (RFC 7468, X.690).

Pure. Runs in the application's interpreter too.
"""

from __future__ import annotations

import binascii
import calendar
import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from stardust.base.pristine import time

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


class Certificate(NamedTuple):
    """What is needed of an X.509 certificate (RFC 5280 4.1). `names` are those that SNI may ask for, in lower
    case; `kind` is the object identifier of the key's algorithm; `expires` counts seconds since the epoch.
    `issuer` and `subject` are names in DER, only good for comparing."""

    names: tuple[str, ...]
    kind: bytes
    issuer: bytes
    subject: bytes
    expires: float


_SEQUENCE, _OCTETS, _BOOLEAN, _UTC_TIME, _TIME, _VERSION, _EXTENSIONS = (
    0x30,
    0x04,
    0x01,
    0x17,
    0x18,
    0xA0,
    0xA3,
)
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87  # [2] and [7] of GeneralName
_SUBJECT_ALT_NAME = b"\x55\x1d\x11"  # 2.5.29.17


def pems(data: bytes) -> list[bytes]:
    """The certificates in a file, each in PEM as it stands there."""
    return [found[0] for found in _PEM.finditer(data)]


def read(pem: bytes) -> Certificate:
    """Read one of `pems`; ValueError if it is damaged."""
    found = _PEM.fullmatch(pem)
    if found is None:
        raise ValueError("not PEM")
    return decode(binascii.a2b_base64(found[1].decode("ascii")))


def decode(der: bytes) -> Certificate:
    """Read a certificate in DER; ValueError if it is not one. Its signature and most of what it says do not
    matter."""
    ((_, body),) = _elements(der, _SEQUENCE)
    fields = [*_elements(_elements(body)[0][1])]
    if fields and fields[0][0] == _VERSION:
        del fields[0]
    if len(fields) < 6:
        raise ValueError("too few fields")
    _, _, (_, issuer), (_, validity), (_, subject), (_, key), *rest = fields
    algorithm = _elements(_elements(key)[0][1])
    _, end = _elements(validity)
    return Certificate(
        names=tuple(_names(rest)),
        kind=algorithm[0][1],
        issuer=issuer,
        subject=subject,
        expires=_moment(*end),
    )


def _names(fields: Sequence[tuple[int, bytes]]) -> Iterator[str]:
    for extension in (each for tag, body in fields if tag == _EXTENSIONS for each in _elements(_only(body))):
        (_, identifier), *_, (_, value) = _elements(extension[1])
        if identifier != _SUBJECT_ALT_NAME:
            continue
        for tag, name in _elements(_only(value)):
            if tag == _DNS_NAME:
                yield name.decode("ascii").lower()
            elif tag == _IP_ADDRESS:
                yield str(ipaddress.ip_address(name))


def _only(data: bytes) -> bytes:
    ((_, body),) = _elements(data, _SEQUENCE)
    return body


def _elements(data: bytes, tag: Optional[int] = None) -> list[tuple[int, bytes]]:
    """The elements that `data` consists of, as tags and contents (DER, X.690 8.1 and 10.1); at least one.
    With `tag`, exactly one of that tag. ValueError if they are none."""
    found: list[tuple[int, bytes]] = []
    position = 0
    while position < len(data):
        if len(data) - position < 2 or data[position] & 0x1F == 0x1F:
            raise ValueError("no element")
        size, start = data[position + 1], position + 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(data[position + 2 : start], "big")
            # The shortest form is the only one; the indefinite one would be 0 here.
            if size < 0x80 or data[position + 2] == 0 or start - position > 6:
                raise ValueError("a length that is not DER")
        if start + size > len(data):
            raise ValueError("an element that is cut off")
        found.append((data[position], data[start : start + size]))
        position = start + size
    if not found or (tag is not None and [each for each, _ in found] != [tag]):
        raise ValueError("not the element that is due")
    return found


def _moment(tag: int, text: bytes) -> float:
    """Seconds since the epoch of "YYMMDDHHMMSSZ" or "YYYYMMDDHHMMSSZ" (RFC 5280 4.1.2.5)."""
    digits = text.decode("ascii")
    if tag == _UTC_TIME:
        # "Where YY is greater than or equal to 50, the year SHALL be interpreted as 19YY"
        digits = ("19" if digits >= "5" else "20") + digits
    elif tag != _TIME:
        raise ValueError("no time")
    return calendar.timegm(time.strptime(digits, "%Y%m%d%H%M%SZ"))
