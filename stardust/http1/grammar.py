"""The grammar of HTTP as compiled regexes, each below the ABNF it stands for (RFC 9110, RFC 9112, RFC 3986).

Rules of this file:

- Text is `str` decoded as latin-1, one character a byte, so a class such as `[0-9]` means bytes. `\\d`, `\\s`
  and `\\w` know Unicode and never appear; neither does a flag.
- Every pattern is used with `fullmatch` unless its comment says otherwise: `$` would let a line feed pass.
- Every pattern is linear: wherever a repetition can end, the next character says so at once. What would
  need blanks to be tried on both sides of a value is stripped by the caller (`strip(BLANKS)`).
- Where a pattern is narrower than its ABNF, the comment names the rule of ours that narrows it.
"""

from __future__ import annotations

import re

# OWS = *( SP / HTAB )                                                         RFC 9110 5.6.3
# Nothing else is ever stripped: `str.strip()` alone also takes VT, FF, NEL and the no-break space.
BLANKS = " \t"

_TCHAR = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
_FIELD_TEXT = r"\t\x20-\x7e\x80-\xff"
# quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE                      RFC 9110 5.6.4
_QUOTED = rf"\"(?:[\t\x20!#-\[\]-~\x80-\xff]|\\[{_FIELD_TEXT}])*\""
_UNRESERVED = r"A-Za-z0-9\-._~"
# sub-delims without the comma, so that a list never looks like one host.
_SUB_DELIMS = r"!$&'()*+;="
# VCHAR without "#" (a fragment is never sent) and "\" (which some read as "/"). Wider than RFC 3986, which
# has no place for <>"^`{|}: browsers send them.
_PATH = r"!\x22$-\x3e@-\[\]-~"
_QUERY = r"!\x22$-\[\]-~"
# The longest method registered has 17 characters; RFC 9110 9.1 sets no limit.
_METHOD = rf"[{_TCHAR}]{{1,32}}"

# token = 1*tchar                                                              RFC 9110 5.6.2
TOKEN = re.compile(rf"[{_TCHAR}]+")

# method = token                                                               RFC 9112 3.1
METHOD = re.compile(_METHOD)

# What has arrived of a method, for `match`: it ends before the first byte that cannot belong to one.
METHOD_BEGUN = re.compile(rf"[{_TCHAR}]{{0,32}}".encode())

# request-line = method SP request-target SP HTTP-version                      RFC 9112 3
# origin-form = absolute-path [ "?" query ]                                    RFC 9112 3.2.1
# The one form browsers use. Groups: method, target, path, query or None, minor version. CONNECT has another.
ORIGIN_LINE = re.compile(
    rf"(?!CONNECT )({_METHOD}) ((/[{_PATH}]*)(?:\?([{_QUERY}]*))?) HTTP/1\.([01])",
)

# HTTP-version = HTTP-name "/" DIGIT "." DIGIT ; HTTP-name = %s"HTTP"          RFC 9112 2.3
VERSION = re.compile(r"HTTP/[0-9]\.[0-9]")

# absolute-form = absolute-URI, here "http:" or "https:" "//" authority path-abempty [ "?" query ]
#                                                                              RFC 9112 3.2.2, RFC 9110 4.2
# Groups: authority, path, query or None. The authority is checked by HOST.
ABSOLUTE_TARGET = re.compile(
    rf"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)((?:/[{_PATH}]*)?)(?:\?([{_QUERY}]*))?",
)

# Host = uri-host [ ":" port ]                                                 RFC 9110 7.2
# uri-host = IP-literal / IPv4address / reg-name ; reg-name = *( unreserved / pct-encoded / sub-delims )
# IP-literal = "[" ( IPv6address / IPvFuture ) "]" ; port = *DIGIT             RFC 3986 3.2.2, 3.2.3
# Never empty, no userinfo. IPv6 is held to its characters only. Groups: host, port or None.
HOST = re.compile(
    rf"((?:[{_UNRESERVED}{_SUB_DELIMS}]|%[0-9A-Fa-f]{{2}})+"
    rf"|\[(?:[0-9A-Fa-f:.]+|[Vv][0-9A-Fa-f]+\.[{_UNRESERVED}{_SUB_DELIMS}:]+)\])"
    r"(?::([0-9]{0,5}))?"
)

# field-line = field-name ":" OWS field-value OWS                              RFC 9112 5
# field-name = token ; field-vchar = VCHAR / obs-text                          RFC 9110 5.1, 5.5
# Groups: name, value with its blanks still around it.
FIELD_LINE = re.compile(rf"([{_TCHAR}]+):([{_FIELD_TEXT}]*)")

# What a field value, or a reason phrase, is made of: no CTL but HTAB          RFC 9110 5.5, RFC 9112 4
FIELD_VALUE = re.compile(rf"[{_FIELD_TEXT}]*")

# Content-Length = 1*DIGIT                                                     RFC 9110 8.6
# 18 digits: what a signed 64-bit integer holds whatever the digits are.
CONTENT_LENGTH = re.compile(r"[0-9]{1,18}")

# Transfer-Encoding = #transfer-coding, here token codings before a last "chunked"   RFC 9112 6.1
CODINGS_THEN_CHUNKED = re.compile(
    rf"(?:(?![Cc][Hh][Uu][Nn][Kk][Ee][Dd][ \t,])[{_TCHAR}]+[ \t]*,[ \t]*)+[Cc][Hh][Uu][Nn][Kk][Ee][Dd]"
)

# chunk-size [ chunk-ext ]                                                     RFC 9112 7.1
# chunk-size = 1*HEXDIG                                    16 digits: 64 bits, leading zeros bounded
# chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )    RFC 9112 7.1.1
# chunk-ext-name = token ; chunk-ext-val = token / quoted-string
# No blank right behind the size: nothing sends one, and most parsers refuse it.
# Groups: size, extensions.
CHUNK_LINE = re.compile(
    r"([0-9A-Fa-f]{1,16})(?![ \t])"
    rf"((?:[ \t]*;[ \t]*[{_TCHAR}]+"
    rf"(?:[ \t]*=[ \t]*(?:[{_TCHAR}]+|{_QUOTED}))?)*)"
)

# status-line without its version, as PEP 3333 wants it: "999 Message here". Many have no reason
# status-code = 3DIGIT ; reason-phrase = 1*( HTAB / SP / VCHAR / obs-text )    RFC 9112 4
STATUS = re.compile(rf"[1-9][0-9]{{2}}(?: [{_FIELD_TEXT}]*)?")

# A CR or LF that is not part of CRLF, for `search`, in bytes. A CR at the very end is no verdict yet.
# "A recipient of such a bare CR MUST consider that element to be invalid"     RFC 9112 2.2
BARE_LINE_END = re.compile(rb"\r[^\n]|[^\r]\n|^\n")

# PROXY_STRING + single space + INET protocol + addresses and ports, single spaces between them + CRLF
# "PROXY UNKNOWN" may be followed by anything up to its CRLF            PROXY protocol, 2.1
# Ports: "in the range 0..65535 [...] must not have leading zeros"; the upper bound is not held here.
# Groups: "TCP4" or "TCP6", source, destination, source port, destination port; None of UNKNOWN.
PROXY_LINE = re.compile(
    r"PROXY (?:UNKNOWN(?: [^\r\n]*)?"
    r"|(TCP4|TCP6) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
)

# forwarded-element = [ forwarded-pair ] *( ";" [ forwarded-pair ] )           RFC 7239 4
# forwarded-pair = token "=" value ; value = token / quoted-string
_FORWARDED_PAIR = rf"[{_TCHAR}]+=(?:[{_TCHAR}]+|{_QUOTED})"

# With the blanks around it, for `match`: it ends before the comma behind an element. Group: the element.
FORWARDED_ELEMENT = re.compile(rf"[ \t]*((?:{_FORWARDED_PAIR})?(?:;(?:{_FORWARDED_PAIR})?)*)[ \t]*")

# The pairs of what is an element, for `finditer`. Groups: name, token or None, inside of the quotes or None.
FORWARDED_PAIR = re.compile(rf"([{_TCHAR}]+)=(?:([{_TCHAR}]+)|\"((?:[^\"\\]|\\.)*)\")")

# node = nodename [ ":" node-port ] ; node-port = port / obfport               RFC 7239 6
# nodename = IPv4address / "[" IPv6address "]" / "unknown" / obfnode
# obfnode, obfport = "_" 1*( ALPHA / DIGIT / "." / "_" / "-" )
# Addresses are held to their characters only. Groups: IPv4, IPv6 or None each; port in digits or None.
_OBFUSCATED = r"_[A-Za-z0-9._-]+"
NODE = re.compile(
    rf"(?:([0-9.]+)|\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|[Uu][Nn][Kk][Nn][Oo][Ww][Nn]|{_OBFUSCATED})"
    rf"(?::(?:([0-9]{{1,5}})|{_OBFUSCATED}))?"
)

# Where an application is mounted: absolute-path as above, without a comma (of a list, the last counts) and
# with no empty segment in it.
PREFIX = re.compile(r"(?:/[!\x22$-+\-.0->@-\[\]-~]+)+")
