"""The header of the PROXY protocol, versions 1 and 2: a proxy says who its client is, before all else.

The specification is HAProxy's doc/proxy-protocol.txt; its sections are quoted where a rule is obeyed.

    PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\\r\\n                      version 1: a line of at most 107 bytes
    signature, version and command, family, length, addresses, TLVs    version 2: binary

Rules:
- Any cut of the same bytes gives the same answer, a refusal included; work is linear in the bytes.
- `read` says how many bytes belong to the header. The caller takes those and no more: what follows is
  the client's, TLS or HTTP.
- What does not tell an address (UNKNOWN, LOCAL, UNIX sockets) is no refusal: the connection's own stays.
- TLVs are held to their form and ignored, but for the checksum, which is verified.

The module runs in the application's interpreter: Python 3.9.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple, Optional, Union

from stardust.base import address
from stardust.base.errors import ProtocolError
from stardust.http1 import grammar

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

# "the maximum line lengths the receiver must support including the CRLF [...] 107 chars"  2.1
MOST_LINE = 107

# A length of 16 bits allows for 64 KiB. No proxy comes near to this.
MOST_REST = 4096

_LINE_BEGINS = b"PROXY "
_FIXED = struct.Struct("!12sBBH")  # signature; version and command; family and transport; bytes that follow
_TLV = struct.Struct("!BH")
_CRC32C = 0x03

MOST = _FIXED.size + MOST_REST
"""Bytes of the largest header."""

_LOCAL, _PROXY = range(2)
_UNSPEC, _TCP4, _TCP6, _STREAM = 0x00, 0x11, 0x21, 0x31
# What an address block consists of: source and destination, then the ports of both  2.2
_BLOCKS = {
    _TCP4: struct.Struct("!4s4xH2x"),
    _TCP6: struct.Struct("!16s16xH2x"),
    _STREAM: struct.Struct("!108x108x"),
}


class Client(NamedTuple):
    """Address and port as `address.peer` gives them."""

    host: str
    port: str


class Header(NamedTuple):
    """`size`: its bytes. `client` is None if it names none: the connection is the proxy's own, or of a kind
    without addresses."""

    size: int
    client: Optional[Client]


def read(buffer: Union[bytes, bytearray]) -> Optional[Header]:
    """The header that `buffer` begins with; None if it has not ended yet. What follows is not looked at.

    Raises ProtocolError for a header that is not valid, and for bytes that cannot begin one.
    """
    if buffer.startswith(_LINE_BEGINS):
        return _line(buffer)
    if buffer.startswith(SIGNATURE):
        return _block(buffer)
    begun = bytes(buffer[: len(SIGNATURE)])
    if _LINE_BEGINS.startswith(begun) or SIGNATURE.startswith(begun):
        return None
    raise _refusal("it does not begin with a PROXY header")


def _refusal(reason: str) -> ProtocolError:
    return ProtocolError(400, reason)


# ── Version 1 ─────────────────────────────────────────────────────────────────────────────────────────


def _line(buffer: Union[bytes, bytearray]) -> Optional[Header]:
    end = buffer.find(b"\n", 0, MOST_LINE) + 1
    if not end:
        # CVE-2026-47736: a line that never ends
        if len(buffer) >= MOST_LINE:
            raise _refusal(f"its PROXY line is longer than {MOST_LINE} bytes")
        return None
    line = buffer[:end].decode("latin-1")
    match = grammar.PROXY_LINE.fullmatch(line)
    if match is None:
        raise _refusal(f"its PROXY line is malformed: {line!a}")
    family, source, destination, source_port, destination_port = match.groups("")
    # "If the announced transport protocol is "UNKNOWN", then the receiver knows that the client speaks the
    # correct PROXY protocol [...] it should accept the connection and use the real connection's parameters"
    if not family:
        return Header(end, None)
    try:
        kind = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
        kind(source), kind(destination)
        host = str(address.ip(source))
    except ValueError:
        raise _refusal(f"its PROXY line has no valid {family} addresses: {line!a}") from None
    if int(source_port) > 65535 or int(destination_port) > 65535:
        raise _refusal(f"its PROXY line has a port above 65535: {line!a}")
    return Header(end, Client(host, source_port))


# ── Version 2 ─────────────────────────────────────────────────────────────────────────────────────────


def _block(buffer: Union[bytes, bytearray]) -> Optional[Header]:
    if len(buffer) < _FIXED.size:
        return None
    _, what, family, length = _FIXED.unpack_from(buffer)
    # "any other value must be rejected": of the version, "always sent as \x2", and of the command  2.2
    if what >> 4 != 2:
        raise _refusal(f"its PROXY header has version {what >> 4}; only 1 and 2 are supported")
    command = what & 0x0F
    if command not in (_LOCAL, _PROXY):
        raise _refusal(f"its PROXY header has command {command}, not LOCAL or PROXY")
    if command == _PROXY and family not in (_UNSPEC, *_BLOCKS):
        raise _refusal(f"its PROXY header has family {family:#04x}, which is not one of streams")
    if length > MOST_REST:
        raise _refusal(f"its PROXY header has {length} bytes, more than {MOST_REST}")
    size = _FIXED.size + length
    if len(buffer) < size:
        return None
    # LOCAL: "the receiver [...] must use the real connection endpoints and discard the protocol block
    # including the family which is ignored". UNSPEC: "must ignore address information"  2.2
    if command == _LOCAL or family == _UNSPEC:
        return Header(size, None)
    return Header(size, _client(bytes(buffer[:size]), family))


def _client(header: bytes, family: int) -> Optional[Client]:
    """The client in a whole `header` of this family."""
    block = _BLOCKS[family]
    if len(header) < _FIXED.size + block.size:
        raise _refusal("its PROXY header is too short for its addresses")
    _check_values(header, _FIXED.size + block.size)
    if family == _STREAM:
        return None
    packed, port = block.unpack_from(header, _FIXED.size)
    return Client(str(address.ip(str(ipaddress.ip_address(packed)))), str(port))


def _check_values(header: bytes, position: int) -> None:
    """Refuses what is not a series of TLVs from `position` to the end, and a checksum that is wrong."""
    checksums = []
    while position < len(header):
        if len(header) - position < _TLV.size:
            raise _refusal("its PROXY header ends within a TLV")
        kind, length = _TLV.unpack_from(header, position)
        position += _TLV.size
        if len(header) - position < length:
            raise _refusal("its PROXY header ends within a TLV")
        if kind == _CRC32C:
            checksums.append((position, length))
        position += length
    for start, length in checksums:
        given = header[start : start + length]
        # "replace the 32 bits of the checksum field in the received PROXY header with all '0's"  2.2.3
        plain = header[:start] + bytes(length) + header[start + length :]
        if given != crc32c(plain).to_bytes(4, "big"):
            raise _refusal("its PROXY header has a wrong checksum")


def _crc_row(number: int) -> int:
    for _ in range(8):
        number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    return number


_CRC_TABLE = [_crc_row(number) for number in range(256)]


def crc32c(data: bytes) -> int:
    """The checksum of Castagnoli (RFC 3720 12.1, appendix B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
