"""Advisories about other servers, and what shows that this one does better.

Each names files of the corpus, or tests as "module::name", by the beginning of their names. Those about
slow clients, limits of connections and PROXY lines are elsewhere: tests of the loop and of listeners.
"""

from __future__ import annotations

from collections.abc import Mapping

W1 = "http1/test_response::test_refused"
W5 = "worker/test_wire::test_w5_"
W6 = "wsgi/test_gateway::test_w6_"

ADVISORIES: Mapping[str, tuple[str, ...]] = {
    # gunicorn
    "CVE-2018-1000164": (W1, "fuzz/test_fuzz::test_w1_"),
    "CVE-2024-1135": ("F3-two-fields", "F3-not-last", "F1-chunked-and-length"),
    "CVE-2024-6827": ("F3-unknown", "F3-quoted", "F1-length-and-chunked"),
    "gunicorn Sec-Websocket-Key1": ("F4-websocket-key1-frames-nothing",),
    "gunicorn 22.0": (
        "F2-chunked-in-http-1.0",
        "F3-empty",
        "F1-",
        "L3-method-",
        "L4-",
        "L6-name-with-",
        "L8-",
    ),
    "gunicorn 23.0": ("L1-bare-cr-in-value", "L7-nul", "L2-no-target"),
    "gunicorn 25": (
        *("L5-authority-for-get", "L5-asterisk-for-get", "L5-relative", "L7-escape", "F8-trailer-forbidden"),
        *("F4-list", "F6-extension-bare-cr", "L9-host-twice", "L9-content-type-twice"),
        "worker/test_wire::test_f9_",
    ),
    "gunicorn #3047, #3087, #3104, #3144": (
        *("F4-underscore", "F4-plus", "F5-size-0x", "F5-size-underscore", "L7-nul", "L1-bare-cr-in-value"),
        *("L6-name-with-bracket", "L4-garden"),
    ),
    # waitress
    "CVE-2019-16785": ("L1-bare-lf-after-field", "L1-bare-lf-after-request-line", "L1-bare-lf-everywhere"),
    "CVE-2019-16786": ("F3-unknown", "F3-parameter", "F3-identity"),
    "CVE-2019-16789": ("F3-vertical-tab", "F3-form-feed", "F3-no-break-space", "L7-vertical-tab"),
    "CVE-2019-16792": ("F4-twice-different", "F4-twice-equal"),
    "CVE-2020-5236": ("L7-redos", "http1/test_grammar::test_l11_no_pattern_backtracks"),
    "CVE-2022-24761": ("F4-plus", "F4-hex", "F5-size-0x", "F6-extension-control"),
    "CVE-2024-49768": ("F10-nothing-after-a-refusal", "worker/test_wire::test_f10_"),
    # cheroot
    "cheroot #275, #737": ("F4-twice-different", "F1-length-and-chunked"),
    "cheroot #714, #230": ("L6-blank-before-colon", "F3-blank-before-colon"),
    "cheroot #721": ("L6-empty-name",),
    # puma
    "CVE-2019-16770": ("worker/test_loop::test_s7_others_have_their_turn",),
    "CVE-2021-29509": ("worker/test_loop::test_s7_others_have_their_turn",),
    "CVE-2020-5247": (W1,),
    "CVE-2020-5249": ("http1/test_response::test_informational_refused",),
    "CVE-2020-11076": ("F3-two-codings-then-chunked", "F3-not-last"),
    "CVE-2020-11077": ("F3-unknown", "F3-two-fields"),
    "CVE-2021-41136": ("L1-bare-lf-after-field",),
    "CVE-2022-23634": (W6, "worker/test_wire::test_w6_"),
    "CVE-2022-24790": ("F3-gzip-then-chunked", "F4-decimal", "F4-twice-different", "F5-data-then-lf"),
    "CVE-2023-40175": ("F8-trailers-then-next", "F8-trailer-malformed", "F4-blank"),
    "CVE-2024-21647": ("F6-extension-endless",),
    "CVE-2024-45614": ("L8-dash-form-alone", "L8-underscore-dropped"),
    # WEBrick, Passenger, protocol-http1
    "CVE-2020-25613": ("F3-vertical-tab", "F3-unknown"),
    "CVE-2025-6442": ("L1-bare-cr-ends-field", "L1-cr-cr-lf", "L1-cr-ends-head"),
    "CVE-2024-47220": ("F1-chunked-and-length",),
    "CVE-2025-26803": ("L3-method-bracket", "L3-method-of-33-characters"),
    "CVE-2023-38697": ("F4-plus", "F5-size-plus", "F5-size-0x", "F6-extension-bare-lf"),
    # Node.js and llhttp
    "CVE-2018-12121": ("L11-head-too-large", "L11-endless-fields"),
    "CVE-2019-15605": ("F3-vertical-tab", "F3-quoted"),
    "CVE-2019-15606": ("L7-blanks-around-value",),
    "CVE-2020-8201": ("L1-bare-cr-in-value", "L6-name-with-nul"),
    "CVE-2020-8287": ("F3-two-fields", "F3-two-fields-identity"),
    "CVE-2021-22959": ("L6-blank-before-colon", "F4-twice-blank-before-colon"),
    "CVE-2021-22960": ("F6-extension-nameless", "F6-no-extension"),
    "CVE-2022-32213": ("F3-not-last", "F3-parameter"),
    "CVE-2022-32214": ("L1-bare-cr-ends-field", "L1-cr-at-end-of-value"),
    "CVE-2022-32215": ("F3-folded",),
    "CVE-2022-35256": ("L1-bare-cr-ends-field", "L1-bare-lf-after-field"),
    "CVE-2023-30589": ("L1-bare-cr-ends-field", "L1-cr-ends-head"),
    "CVE-2024-27982": ("F4-behind-a-blank", "F3-behind-a-blank"),
    "CVE-2025-23167": ("L1-cr-x-ends-head",),
    "CVE-2024-22019": ("F6-extension-endless", "F6-extensions-too-long-together"),
    "CVE-2026-21710": ("L8-proto-dropped",),
    # twisted
    "CVE-2020-10108": ("F4-twice-different",),
    "CVE-2020-10109": ("F1-length-and-chunked",),
    "CVE-2022-24801": ("F4-plus", "F4-minus", "F5-size-0x", "F6-extension-control", "F3-form-feed"),
    "CVE-2023-46137": ("worker/test_wire::test_f12_",),
    "CVE-2024-41671": ("worker/test_wire::test_f12_",),
    "CVE-2022-39348": ("worker/test_wire::test_w10_",),
    # aiohttp
    "CVE-2023-37276": ("L6-", "L7-"),
    "CVE-2023-47627": ("F4-plus", "F4-underscore", "F5-size-underscore", "L1-bare-lf-after-field"),
    "CVE-2023-47641": ("F1-chunked-and-length",),
    "CVE-2024-23829": ("L6-name-with-bracket", "L4-two-digits", "L4-superscript-digit"),
    "CVE-2024-52304": ("F6-extension-bare-lf",),
    "CVE-2025-53643": ("F8-trailer-malformed", "F8-next-request-as-trailer"),
    "CVE-2025-69224": ("F4-superscript-digit", "L12-unicode-digit-in-port", "http1/test_grammar::test_l12_"),
    "CVE-2025-69229": ("F7-tiny-chunks",),
    "CVE-2026-22815": ("F8-trailers-too-many", "F8-trailers-too-long", "F8-trailer-endless"),
    "CVE-2026-34525": ("L9-host-twice",),
    # tornado, werkzeug
    "CVE-2025-67725": ("L9-many-of-a-list", "L11-too-many-fields"),
    "CVE-2025-67724": (W1,),
    "GHSA-qppv-j76h-2rpx": ("F4-underscore", "F5-size-underscore"),
    "tornado #3310": ("L7-nul", "L1-bare-cr-in-value"),
    "CVE-2022-29361": ("worker/test_wire::test_f11_",),
    "CVE-2020-28724": ("L5-two-slashes",),
    # meinheld, uvicorn, h11, gevent, eventlet, granian, CPython, Go, Kestrel
    "CVE-2020-7658": ("F1-chunked-and-length",),
    "CVE-2020-7694": ("logs/test_accesslog::test_w11_", "L5-escapes-stay"),
    "CVE-2020-7695": (W1,),
    "CVE-2025-43859": ("F5-data-then-two-other-bytes",),
    "CVE-2023-41419": ("F8-trailers-then-next",),
    "CVE-2025-58068": ("F8-trailers-then-next", "F8-next-request-as-trailer"),
    "CVE-2026-42545": (W1, "worker/test_wire::test_w9_"),
    "CVE-2026-0865": (W1,),
    "CVE-2025-22871": ("F5-size-bare-lf", "F5-last-chunk-bare-lf", "F6-extension-bare-lf"),
    "CVE-2025-55315": ("F5-size-bare-lf", "F6-extension-bare-lf", "F6-extension-bare-cr"),
}
