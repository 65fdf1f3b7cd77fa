"""The PROXY protocol: a row for each rule of its specification, and properties against another encoder."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stardust.base.errors import ProtocolError
from stardust.http1 import proxy
from stardust.http1.proxy import Client, Header, crc32c, read

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
V4 = socket.inet_pton(socket.AF_INET, "192.0.2.1") + socket.inet_pton(socket.AF_INET, "192.0.2.2")
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
PORTS = struct.pack("!HH", 4711, 443)
UNIX = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")


def line(text: str) -> bytes:
    return f"PROXY {text}\r\n".encode("latin-1")


def block(family: int, rest: bytes, what: int = 0x21, length: int | None = None) -> bytes:
    size = len(rest) if length is None else length
    return SIGNATURE + bytes([what, family]) + size.to_bytes(2, "big") + rest


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def summed(family: int, rest: bytes, wrong: int = 0) -> bytes:
    """With a right checksum, or one that differs in some bits, before another TLV."""
    rest, behind = rest + tlv(3, bytes(4)), tlv(4, b"padding")
    header = block(family, rest + behind)
    at = len(header) - len(behind) - 4
    # The CRC of Castagnoli, bit by bit, from its polynomial (RFC 3720).
    crc = 0xFFFFFFFF
    for byte in header:
        for bit in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if (crc ^ byte >> bit) & 1 else 0)
    checksum = crc ^ 0xFFFFFFFF ^ wrong
    return header[:at] + checksum.to_bytes(4, "big") + header[at + 4 :]


@pytest.mark.parametrize(
    ("data", "client"),
    [
        pytest.param(line("TCP4 192.0.2.1 192.0.2.2 4711 443"), ("192.0.2.1", "4711"), id="L14-v1-tcp4"),
        pytest.param(line("TCP6 2001:DB8::1 ::2 0 65535"), ("2001:db8::1", "0"), id="L14-v1-tcp6"),
        pytest.param(line("TCP6 ::ffff:192.0.2.1 ::2 1 2"), ("192.0.2.1", "1"), id="L14-v1-mapped"),
        pytest.param(
            line(f"TCP6 {'ffff:' * 7}ffff {'ffff:' * 7}ffff 65535 65535"),
            (f"{'ffff:' * 7}ffff", "65535"),
            id="L14-v1-longest-addresses",
        ),
        pytest.param(line("UNKNOWN"), None, id="L14-v1-unknown"),
        pytest.param(line("UNKNOWN \0anything" + "x" * 82), None, id="L14-v1-unknown-with-107-bytes"),
        pytest.param(block(0x11, V4 + PORTS), ("192.0.2.1", "4711"), id="L14-v2-tcp4"),
        pytest.param(block(0x21, V6 + PORTS), ("2001:db8::1", "4711"), id="L14-v2-tcp6"),
        pytest.param(
            block(0x21, bytes(10) + b"\xff\xff\xc0\0\2\1" + bytes(16) + PORTS),
            ("192.0.2.1", "4711"),
            id="L14-v2-mapped",
        ),
        pytest.param(block(0x31, UNIX), None, id="L14-v2-unix"),
        pytest.param(block(0x00, b"anything"), None, id="L14-v2-unspec"),
        pytest.param(block(0x00, b""), None, id="L14-v2-unspec-empty"),
        pytest.param(block(0x12, b"\1", what=0x20), None, id="L14-v2-local-ignores-the-rest"),
        pytest.param(
            block(0x11, V4 + PORTS + tlv(5, b"unique") + tlv(0x20, b"") + tlv(0xEE, b"x" * 900)),
            ("192.0.2.1", "4711"),
            id="L14-v2-tlvs",
        ),
        pytest.param(
            block(0x11, V4 + PORTS + tlv(4, bytes(4096 - 15))), ("192.0.2.1", "4711"), id="L14-v2-largest"
        ),
        pytest.param(summed(0x11, V4 + PORTS), ("192.0.2.1", "4711"), id="L14-v2-checksum"),
    ],
)
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_client(data: bytes, client: Any, kind: type[bytes]) -> None:
    expected = Header(len(data), None if client is None else Client(*client))
    assert read(kind(data)) == expected
    assert read(kind(data + b"GET / HTTP/1.1\r\n" + SIGNATURE)) == expected
    for cut in range(len(data)):
        assert read(kind(data[:cut])) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\n", id="L14-http"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", id="L14-tls"),
        pytest.param(b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", id="L14-v1-case"),
        pytest.param(b"\r\nPROXY UNKNOWN\r\n", id="L14-v1-after-an-empty-line"),
        pytest.param(b"PROXY UNKNOWN\n", id="L14-v1-bare-lf"),
        pytest.param(b"PROXY UNKNOWN a\rb\r\n", id="L14-v1-bare-cr"),
        pytest.param(b"PROXY UNKNOWNS\r\n", id="L14-v1-unknown-is-a-word"),
        pytest.param(line("UNKNOWN " + "x" * 92), id="L14-v1-108-bytes"),
        pytest.param(b"PROXY UNKNOWN " + b"x" * 4000, id="L14-v1-no-end"),
        pytest.param(line(""), id="L14-v1-empty"),
        pytest.param(line("UDP4 192.0.2.1 192.0.2.2 1 2"), id="L14-v1-udp"),
        pytest.param(line("TCP4  192.0.2.1 192.0.2.2 1 2"), id="L14-v1-two-spaces"),
        pytest.param(line("TCP4 192.0.2.1 192.0.2.2 1 2 "), id="L14-v1-trailing-space"),
        pytest.param(line("TCP4 192.0.2.1 192.0.2.2 1"), id="L14-v1-no-port"),
        pytest.param(line("TCP4 192.0.2.1 192.0.2.2 01 2"), id="L14-v1-leading-zero"),
        pytest.param(line("TCP4 192.0.2.1 192.0.2.2 65536 2"), id="L14-v1-port-above"),
        pytest.param(line("TCP4 192.0.2.1 192.0.2.2 1 65536"), id="L14-v1-destination-port-above"),
        pytest.param(line("TCP4 192.0.2.1 192.0.2.2 +1 2"), id="L14-v1-signed-port"),
        pytest.param(line("TCP4 192.0.2.\xb2 192.0.2.2 1 2"), id="L14-v1-digits-are-ascii"),
        pytest.param(line("TCP4 192.0.2 192.0.2.2 1 2"), id="L14-v1-three-numbers"),
        pytest.param(line("TCP4 192.0.2.01 192.0.2.2 1 2"), id="L14-v1-zero-in-address"),
        pytest.param(line("TCP4 ::1 ::2 1 2"), id="L14-v1-six-in-tcp4"),
        pytest.param(line("TCP6 192.0.2.1 ::2 1 2"), id="L14-v1-four-in-tcp6"),
        pytest.param(line("TCP6 ::1 192.0.2.2 1 2"), id="L14-v1-four-as-destination"),
        pytest.param(line("TCP6 fe80::1%eth0 ::2 1 2"), id="L14-v1-zone"),
        pytest.param(block(0x11, V4 + PORTS, what=0x11), id="L14-v2-version-1"),
        pytest.param(block(0x11, V4 + PORTS, what=0x31), id="L14-v2-version-3"),
        pytest.param(block(0x11, V4 + PORTS, what=0x22), id="L14-v2-command-2"),
        pytest.param(block(0x12, V4 + PORTS), id="L14-v2-udp4"),
        pytest.param(block(0x22, V6 + PORTS), id="L14-v2-udp6"),
        pytest.param(block(0x32, UNIX), id="L14-v2-unix-datagrams"),
        pytest.param(block(0x41, V4 + PORTS), id="L14-v2-family-4"),
        pytest.param(block(0x13, V4 + PORTS), id="L14-v2-transport-3"),
        pytest.param(block(0x01, b""), id="L14-v2-unspec-stream"),
        pytest.param(block(0x11, V4 + PORTS[:3]), id="L14-v2-short"),
        pytest.param(block(0x21, V4 + PORTS), id="L14-v2-tcp6-with-addresses-of-tcp4"),
        pytest.param(block(0x31, UNIX[:-1]), id="L14-v2-short-unix"),
        pytest.param(block(0x11, b"", length=4097), id="L14-v2-too-long-is-not-awaited"),
        pytest.param(block(0x00, b"", length=65535, what=0x20), id="L14-v2-too-long-local"),
        pytest.param(block(0x11, V4 + PORTS + b"\4"), id="L14-v2-tlv-cut-in-type"),
        pytest.param(block(0x11, V4 + PORTS + b"\4\0"), id="L14-v2-tlv-cut-in-length"),
        pytest.param(block(0x11, V4 + PORTS + b"\4\0\2x"), id="L14-v2-tlv-cut-in-value"),
        pytest.param(block(0x31, UNIX + b"\4\xff\xff"), id="L14-v2-tlv-of-unix"),
        pytest.param(summed(0x11, V4 + PORTS, wrong=1), id="L14-v2-wrong-checksum"),
        pytest.param(block(0x11, V4 + PORTS + tlv(3, b"")), id="L14-v2-empty-checksum"),
        pytest.param(summed(0x11, V4 + PORTS + tlv(3, bytes(4))), id="L14-v2-each-checksum"),
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError) as whole:
        read(data)
    reasons = set()
    for cut in range(len(data)):
        try:
            assert read(data[:cut]) is None, f"taken with {cut} bytes"
        except ProtocolError as refusal:
            reasons.add(refusal.reason)
    assert reasons <= {whole.value.reason}


def test_checksum_of_the_specification() -> None:
    """RFC 3720 B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_l14_no_more_than_that() -> None:
    """Who reads this many bytes has a header, or a refusal."""
    longest = block(0x11, V4 + PORTS + tlv(4, bytes(proxy.MOST_REST - 15)))
    assert len(longest) == proxy.MOST
    assert read(longest[:-1]) is None
    assert read(longest) is not None


ADDRESSES = {
    "TCP4": st.tuples(*[st.ip_addresses(v=4)] * 2),
    "TCP6": st.tuples(*[st.ip_addresses(v=6)] * 2),
}
NUMBERS = st.integers(0, 65535)


@given(st.data(), st.sampled_from(["TCP4", "TCP6"]), NUMBERS, NUMBERS, st.binary(max_size=50))
def test_whatever_is_written_is_read(
    data: st.DataObject, family: str, port: int, other: int, rest: bytes
) -> None:
    source, destination = data.draw(ADDRESSES[family])
    mapped = getattr(source, "ipv4_mapped", None)
    client = Client(str(mapped or source), str(port))
    text = line(f"{family} {source} {destination} {port} {other}")
    assert read(text + rest) == Header(len(text), client)
    values = data.draw(
        st.lists(st.tuples(st.sampled_from([1, 2, 4, 5, 32, 48, 238]), st.binary()), max_size=5)
    )
    ports = port.to_bytes(2, "big") + other.to_bytes(2, "big")
    tlvs = b"".join(tlv(kind, value) for kind, value in values)
    binary = block(0x11 if family == "TCP4" else 0x21, source.packed + destination.packed + ports + tlvs)
    assert read(binary + rest) == Header(len(binary), client)


@given(
    st.sampled_from([b"", b"PROXY TCP4 ", b"PROXY ", SIGNATURE, SIGNATURE + b"\x21\x11\0\x10"]), st.binary()
)
def test_anything_else_is_refused_or_awaited(start: bytes, rest: bytes) -> None:
    """Nothing but a ProtocolError, and of every prefix the same answer or none yet."""

    def answer(data: bytes) -> Header | str | None:
        try:
            return read(data)
        except ProtocolError as refusal:
            return refusal.reason

    data = start + rest
    final = answer(data)
    assert {answer(data[:cut]) for cut in range(len(data))} <= {None, final}
    if isinstance(final, Header):
        assert final.size <= len(data)
