"""The one table of settings.

A setting is one field of `Config` (or, inside a [listen.NAME] table, of `Listen`): its name and type are the
field's own, the rest stands in its `setting(…)`. From these rows come the flags of the command line, the keys
of the TOML file, the validation of both, `stardust --print-config`, `etc/stardust.toml.example` and the
manual pages. A new setting is one field here; then run `python tools/manual.py` (see there).

What a row can say is in `row`, how values are written in `kinds`. Units inside `Config`: seconds (float) and
bytes (int).

Pure. Runs in the application's interpreter too (the configuration travels there as JSON): Python 3.9.
"""

from __future__ import annotations

import json
from typing import Any, Optional

from stardust.base import address as addresses
from stardust.base.address import Address
from stardust.base.records import dataclass
from stardust.settings.kinds import (
    ADDRESS,
    BYTES,
    CHOICE,
    COMMAND,
    COUNT,
    DAY,
    FILE,
    FILES,
    FORWARDED_HEADERS,
    GIB,
    HEADERS,
    HOUR,
    KIB,
    MIB,
    MINUTE,
    MODE,
    OWN_SWITCH,
    PAIRS,
    PATH,
    PIB,
    PROXIES,
    SECONDS,
    SWITCH,
    TEXT,
    TEXTS,
    VERIFICATION,
)
from stardust.settings.row import Section, Setting, rows, setting

DEFAULT_ADDRESS = Address(addresses.TCP, "127.0.0.1", 5000)
"""Where the server listens without a [listen] table, an address flag, and a socket from systemd."""

DEFAULT_PORT = 5000
"""The port that belongs to `--host` without `--port`, as in plackup."""

COMMAND_LINE = "command line"
"""What an error names as its source if no file is."""

SHORTEST = 0.01
"""The least that a time limit may be: a limit of nothing would end every request."""

APPLICATION = Section("Application", "What is served, and the interpreter and environment it runs in.")
WORKERS = Section("Workers", "How many processes serve it, and how long each of them lives.")
TIMES = Section(
    "Time limits",
    'Seconds, or text with a unit: "500ms", "30s", "5min", "2h".',
)
LIMITS = Section(
    "Limits",
    'What one request or response may cost. Sizes are bytes, or text with a unit: "64KiB", "1MiB", "2GiB" '
    '(steps of 1024) or "10kB", "5MB", "1GB" (steps of 1000).',
)
TLS = Section(
    "TLS",
    "Encrypted connections, and who is who on them. What the files must be, how they are renewed while the "
    "server runs, and what the application learns: docs/tls.md.",
)
LOGS = Section("Logs", "What is written where. SIGUSR1 opens the files again after a rotation.")
PROCESS = Section("Process", "The rights of the processes, and the way to the server at run time.")
PROXY = Section(
    "Proxies",
    "Who stands between the clients and the server, and what is believed of them.",
)
LISTENERS = Section(
    "Listeners",
    "Where the server listens. Each listener is a table of its own, and the tables come last: in TOML every "
    "key after a table's header belongs to that table.",
)

SECTIONS = (APPLICATION, WORKERS, TIMES, LIMITS, TLS, LOGS, PROCESS, PROXY, LISTENERS)


# ── The table ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Listen:
    """One listener: a [listen.NAME] table or an address flag. Without `address` it must come from systemd."""

    name: str
    address: Optional[Address] = setting(
        LISTENERS,
        ADDRESS,
        default=None,
        help="where to listen: host:port, [v6]:port, :port, /path or @abstract",
        text="""`:port` is the wildcard address, every interface. A path is a UNIX socket: a file left
        behind by a server that is gone is replaced, one that somebody listens on is refused. `@name` is
        an abstract UNIX socket, without a file. Sockets that systemd hands over are matched by name:
        `FileDescriptorName=NAME` of the socket unit belongs to `[listen.NAME]`. The address is bound by
        the server only if systemd hands over no socket of that name.""",
        unset="the socket comes from systemd",
    )
    mode: Optional[int] = setting(
        LISTENERS,
        MODE,
        default=None,
        low=0,
        high=0o777,
        help="permissions of a UNIX socket's file",
        text="""Whoever has write permission may connect. Text in octal, or a TOML number with `0o` before
        it.""",
        unset="0660",
    )
    owner: str = setting(
        LISTENERS,
        TEXT,
        default="",
        help="owner of a UNIX socket's file, by name or number",
        unset="the user who starts the server",
    )
    group: str = setting(
        LISTENERS,
        TEXT,
        default="",
        help="group of a UNIX socket's file, by name or number",
        text="""The usual way to let a proxy in: `group = "www-data"` and `mode = "0660"`.""",
        unset="the group of the user who starts the server",
    )
    ssl: Optional[bool] = setting(
        LISTENERS,
        OWN_SWITCH,
        default=None,
        help="whether connections of this listener are TLS",
        text="One server can have both: `ssl = true` in the table of port 443, none in that of 80.",
        unset="as the server's ssl",
    )
    proxy_protocol: Optional[bool] = setting(
        LISTENERS,
        OWN_SWITCH,
        default=None,
        help="whether trusted proxies begin their connections with a PROXY header",
        text="As `proxy-protocol` of the server, for this listener alone.",
        unset="as the server's proxy-protocol",
    )


@dataclass(frozen=True)
class Config:
    """A whole configuration, checked. Times are seconds, sizes are bytes, paths are absolute or ""."""

    app: str = setting(
        APPLICATION,
        TEXT,
        default="",
        help="the WSGI application: module:callable, module:factory() or path/to/file.py[:name]",
        text="""`myapp.wsgi:application` is the object `application` of the module `myapp.wsgi`;
        `myapp:create_app()` is what that function returns; `srv/app.py` is a file, relative to `chdir`.
        Without a name `application` is looked for, then `app`. On the command line the application is the
        argument that is no flag.""",
        unset="none; it must be given",
    )
    python: str = setting(
        APPLICATION,
        COMMAND,
        default="",
        help="the interpreter that runs the application",
        text="""Give the one of the application's virtual environment, `/srv/myapp/.venv/bin/python`. It
        may be another version of Python than the server's, from 3.9 on, and needs nothing of the server
        installed. A name without a slash is looked up on `PATH`.""",
        unset="the server's own",
    )
    chdir: str = setting(
        APPLICATION,
        PATH,
        default="",
        help="the directory the application runs in",
        text="It is the first place that modules are imported from, after `pythonpath`.",
        unset="where the server was started",
    )
    pythonpath: tuple[str, ...] = setting(
        APPLICATION,
        TEXTS,
        default=(),
        help="directories to import from, before all others",
        text="Relative to `chdir`.",
    )
    env_file: tuple[str, ...] = setting(
        APPLICATION,
        FILES,
        default=(),
        help="files of NAME=VALUE lines for the application's environment",
        text="""In the form python-dotenv reads, `${NAME}` included. They are read in order, and again
        at every reload; later ones win over earlier ones, and all of them over the server's
        environment. `credential:NAME` is what the unit of the service passes by
        `LoadCredential=NAME:PATH`; the file at PATH may be root's alone.""",
    )
    environment: tuple[tuple[str, str], ...] = setting(
        APPLICATION,
        PAIRS,
        default=(),
        help="variables of the application's environment",
        text="""They win over `env-file`. Flags add to what the file says. Several variables read better
        as a table of its own, `[environment]`, at the end of the file.""",
    )
    preload: bool = setting(
        APPLICATION,
        SWITCH,
        default=True,
        help="import the application once and fork the workers from that",
        text="""Workers then share its memory and start in milliseconds. Turn it off for an application
        that does not survive a fork because importing it starts threads or opens connections: every
        worker then imports it for itself. A reload takes over new code in both cases.""",
    )
    max_workers: int = setting(
        WORKERS,
        COUNT,
        default=10,
        low=0,
        high=1000,
        help="worker processes",
        text="""Each serves one request per thread at a time, and is not held up by slow clients. 0 serves
        from a single process that never forks, for debugging.""",
    )
    threads: int = setting(
        WORKERS,
        COUNT,
        default=1,
        low=1,
        high=1024,
        help="application threads of a worker",
        text="""With 1 the application never sees a second thread of the server's (`wsgi.multithread` is
        false): one of the server's own gives connections to other workers while it works, and never
        calls it. More suit an application that mostly waits for others and is safe to run in
        threads.""",
    )
    max_reqs_per_child: int = setting(
        WORKERS,
        COUNT,
        default=1000,
        low=0,
        help="requests a worker serves before it is replaced",
        text="""It bounds what a slow leak can take. No request is lost by it: at the limit the worker
        accepts nothing more, and serves the connections it has. 0: no limit.""",
    )
    min_reqs_per_child: int = setting(
        WORKERS,
        COUNT,
        default=0,
        low=0,
        help="if set, each worker draws its limit from here to max-reqs-per-child",
        text="""Workers that were started together are then not replaced together. 0: all have the same
        limit.""",
    )
    spawn_interval: float = setting(
        WORKERS,
        SECONDS,
        default=0.0,
        low=0,
        high=HOUR,
        help="least pause between two starts of a worker",
        text="A reload exchanges one worker per pause. 0: no pause.",
    )
    main_process_delay: float = setting(
        WORKERS,
        SECONDS,
        default=0.1,
        low=SHORTEST,
        high=MINUTE,
        help="least pause before a worker that died is replaced",
        text="It doubles, up to 30 seconds, while workers go on dying.",
    )
    timeout: float = setting(
        TIMES,
        SECONDS,
        default=300.0,
        low=SHORTEST,
        high=DAY,
        help="how long a client may neither send nor take a byte",
        text="It starts anew with every byte, while a body comes in and while a response goes out.",
    )
    header_timeout: float = setting(
        TIMES,
        SECONDS,
        default=30.0,
        low=SHORTEST,
        high=DAY,
        help="how long the whole head of a request may take",
        text="Beyond it the client is answered 408.",
    )
    handshake_timeout: float = setting(
        TIMES,
        SECONDS,
        default=10.0,
        low=SHORTEST,
        high=DAY,
        help="how long what comes before HTTP may take",
        text="""That is the TLS handshake (`ssl`), and the PROXY header before it (`proxy-protocol`), both
        together. Beyond it the connection is closed, without an answer.""",
    )
    keepalive_timeout: float = setting(
        TIMES,
        SECONDS,
        default=2.0,
        low=SHORTEST,
        high=DAY,
        help="how long an idle connection is kept for its next request",
        text="""An idle connection holds no worker. Behind a proxy set more than the proxy keeps its idle
        connections, so that the proxy is the one that closes.""",
    )
    request_timeout: float = setting(
        TIMES,
        SECONDS,
        default=0.0,
        low=0,
        high=DAY,
        help="how long the application may work on a request",
        text="""Beyond it the stacks of all threads of the worker are logged and the worker is replaced;
        the client gets no answer. Connections beside it have gone to other workers long before. 0: no
        limit.""",
    )
    boot_timeout: float = setting(
        TIMES,
        SECONDS,
        default=60.0,
        low=SHORTEST,
        high=DAY,
        help="how long the application may take to load",
        text="Beyond it the start, or the reload, has failed.",
    )
    graceful_timeout: float = setting(
        TIMES,
        SECONDS,
        default=30.0,
        low=0,
        high=DAY,
        help="how long a worker that leaves may take to finish its requests",
        text="On stop, reload and replacement. Beyond it the worker is killed.",
    )
    heartbeat_timeout: float = setting(
        TIMES,
        SECONDS,
        default=30.0,
        low=0,
        high=DAY,
        help="how long an idle worker may leave a ping unanswered",
        text="Beyond it the worker is replaced. 0: no limit.",
    )
    idle_timeout: float = setting(
        TIMES,
        SECONDS,
        default=0.0,
        low=0,
        high=DAY,
        help="how long nobody may be connected before the server ends by itself",
        text="""The next connection starts it again. So it has an effect only if systemd handed over every
        listener (systemd.socket(5)), and not with `max-workers = 0`. A connection that waits for its next
        request counts too, and none is lost: who comes while the server leaves is served by the next
        start. The exit code is 0, so the unit must not say `Restart=always`. 0: it never ends by
        itself.""",
    )
    max_keepalive_reqs: int = setting(
        LIMITS,
        COUNT,
        default=1,
        low=0,
        help="requests on one connection",
        text="""1 closes every connection after its first response; 0: no limit. Do raise it where clients
        or a proxy can make use of it: idle connections hold no worker.""",
    )
    max_request_line: int = setting(
        LIMITS,
        BYTES,
        default=8190,
        low=64,
        high=MIB,
        help="longest request line",
        text="Beyond it the client is answered 414.",
    )
    max_header_count: int = setting(
        LIMITS,
        COUNT,
        default=100,
        low=1,
        high=10000,
        help="most header fields of a request",
        text="Beyond it the client is answered 431.",
    )
    max_header_bytes: int = setting(
        LIMITS,
        BYTES,
        default=32 * KIB,
        low=256,
        high=16 * MIB,
        help="largest head of a request, the request line included",
        text="Beyond it the client is answered 431.",
    )
    max_body: int = setting(
        LIMITS,
        BYTES,
        default=GIB,
        low=0,
        high=PIB,
        help="largest body of a request",
        text="""Beyond it the client is answered 413. A body is read whole before the application is
        called; past 1 MiB it waits in an unlinked temporary file. 0: no limit.""",
    )
    max_response_buffer: int = setting(
        LIMITS,
        BYTES,
        default=GIB,
        low=0,
        high=PIB,
        help="how much of a response is kept for a slow reader before the application waits",
        text="Past 1 MiB it waits in an unlinked temporary file.",
    )
    max_buffer_memory: int = setting(
        LIMITS,
        BYTES,
        default=64 * MIB,
        low=0,
        high=PIB,
        help="memory of a worker for all bodies and responses that wait",
        text="""What does not fit waits in unlinked temporary files. 8 KiB of each are not counted, nor is
        what the application itself holds.""",
    )
    min_body_rate: int = setting(
        LIMITS,
        BYTES,
        default=240,
        low=0,
        high=GIB,
        help="least bytes a second of a request's body",
        text="""On average, since the head was complete; the first 5 seconds are free, and a worker looks
        every 5 seconds. Beyond it the client is answered 408. Time in which the worker itself does not
        read counts for nobody. 0: no limit.""",
    )
    min_response_rate: int = setting(
        LIMITS,
        BYTES,
        default=240,
        low=0,
        high=GIB,
        help="least bytes a second that a client takes of a response that waits for it",
        text="""On average, since all of the response was there; the first 20 seconds are free, for a slow
        client takes its bytes in few large steps. Beyond it the connection is reset. An application that
        sends slowly is not concerned. 0: no limit.""",
    )
    max_connections: int = setting(
        LIMITS,
        COUNT,
        default=10000,
        low=0,
        help="connections of a worker",
        text="""At the limit the one that has been idle longest makes room for a new one. While none is
        idle, new ones wait for another worker, or in the kernel. A worker never takes more than its
        descriptors allow (`LimitNOFILE=`), less an eighth and 32 of them for temporary files and the
        application. 0: as many as these allow.""",
    )
    max_connections_per_peer: int = setting(
        LIMITS,
        COUNT,
        default=0,
        low=0,
        help="connections of a worker with one client address",
        text="""One more is answered 503 and closed, whatever it asks for. An IPv6 network of 64 bits
        counts as one address. Connections over UNIX sockets and of `trusted-proxies` are not
        counted, and those that another worker gives away are never refused. Not behind a proxy that is
        not trusted, whose address is that of all clients. 0: no limit.""",
    )
    underscore_headers: str = setting(
        LIMITS,
        CHOICE,
        default="drop",
        choices=("drop", "refuse"),
        help="what becomes of request header fields with an underscore in their name",
        text="""An application could not tell `X_User` from `X-User`, which a proxy may vouch for. `drop`:
        it does not see them. `refuse`: the client is answered 400.""",
    )
    ssl: bool = setting(
        TLS,
        SWITCH,
        default=False,
        help="speak TLS at every listener that does not say otherwise",
        text="""A listener says otherwise by `ssl` in its table. TLS connections cannot move from worker
        to worker: docs/tls.md says when that matters.""",
    )
    ssl_cert_file: tuple[str, ...] = setting(
        TLS,
        FILES,
        default=(),
        help="the certificate, in PEM, with those of its issuers behind it",
        text="""Several are served by the name that a client asks for (SNI); the first is for whoever asks
        for none of them. Files that change are read again for new connections.""",
    )
    ssl_key_file: tuple[str, ...] = setting(
        TLS,
        FILES,
        default=(),
        help="the private key of the certificate, in PEM; of several, in the same order",
        text="""Nobody but its owner and group may be allowed to read it. Unset, each certificate file has
        its key in it.""",
    )
    ssl_key_password_file: str = setting(
        TLS,
        FILE,
        default="",
        help="file whose first line is the password of the private keys",
        unset="none; the keys are not encrypted",
    )
    ssl_ca_file: str = setting(
        TLS,
        FILE,
        default="",
        help="certificates of authorities, in PEM",
        text="""They complete the chain of a certificate whose file has no issuers in it, and client
        certificates must come from them, unless there is `ssl-client-ca-file`.""",
        unset="none",
    )
    ssl_client_ca_file: str = setting(
        TLS,
        FILE,
        default="",
        help="certificates of the authorities that client certificates must come from, in PEM",
        unset="those of ssl-ca-file",
    )
    ssl_verify_mode: str = setting(
        TLS,
        VERIFICATION,
        default="none",
        choices=("none", "optional", "required"),
        help="whether clients are asked for a certificate",
        text="""`optional`: they may have none, but not a wrong one. The application finds in
        `SSL_CLIENT_VERIFY` what came of it. The numbers are those of the original: 0, 1, 3.""",
    )
    ssl_min_version: str = setting(
        TLS,
        CHOICE,
        default="1.2",
        choices=("1.2", "1.3"),
        help="least version of TLS that is spoken",
        text="Older ones than 1.2 are not (RFC 8996).",
    )
    ssl_ciphers: str = setting(
        TLS,
        TEXT,
        default="ECDHE+AESGCM:ECDHE+CHACHA20",
        help="ciphers of TLS 1.2, as a list for OpenSSL (openssl-ciphers(1))",
        text="""The default are those with forward secrecy and authenticated encryption. TLS 1.3 has its
        own, all of that kind.""",
    )
    log_level: str = setting(
        LOGS,
        CHOICE,
        default="info",
        choices=("debug", "info", "warning", "error", "critical"),
        help="least severity of what the server reports",
        text="Reports go to standard error, and to the journal where systemd has connected it.",
    )
    access_log: str = setting(
        LOGS,
        PATH,
        default="",
        help="""file that gets a line for every request; "-" is standard output""",
        text="Refused and killed requests appear too.",
        unset="no access log",
    )
    access_log_format: str = setting(
        LOGS,
        CHOICE,
        default="combined",
        choices=("common", "combined", "json"),
        help="form of the access log's lines",
        text="`common` and `combined` are Apache's; `json` is one object a line.",
    )
    user: str = setting(
        PROCESS,
        TEXT,
        default="",
        help="user the application runs as, by name or number",
        text="For a server that root starts. Under systemd prefer `User=` or `DynamicUser=` of the unit.",
        unset="the user who starts the server",
    )
    group: str = setting(
        PROCESS,
        TEXT,
        default="",
        help="group the application runs as, by name or number",
        unset="the group of user, or of the one who starts the server",
    )
    umask: Optional[int] = setting(
        PROCESS,
        MODE,
        default=None,
        low=0,
        high=0o777,
        help="permissions that files of the application do not get",
        text="Text in octal, or a TOML number with `0o` before it.",
        unset="as inherited",
    )
    control_socket: str = setting(
        PROCESS,
        PATH,
        default="",
        reload=False,
        help="the socket that stardustctl talks to",
        text="""Unset, it is `control` in `$RUNTIME_DIRECTORY`; without such a directory, a file named
        after the configuration file in `/run/stardust` (root) or `$XDG_RUNTIME_DIR/stardust` (others).
        Without a configuration file either there is none, and the signals remain.""",
    )
    backlog: int = setting(
        LISTENERS,
        COUNT,
        default=2048,
        low=1,
        high=65535,
        help="connections the kernel keeps waiting for a listener",
        text="""The kernel cuts it to `net.core.somaxconn`. Sockets from systemd bring their own
        (`Backlog=` of the socket unit).""",
    )
    ipv6: bool = setting(
        LISTENERS,
        SWITCH,
        default=True,
        help="let the wildcard address take IPv6 as well as IPv4",
        text="Off, `:port` takes IPv4 only, and an IPv6 address is refused.",
    )
    store_connections: bool = setting(
        LISTENERS,
        SWITCH,
        default=False,
        help="let idle connections outlive a restart of the service",
        text="""A server that stops gives connections without a request to systemd, and the next start
        takes them up: `systemctl restart` then ends no connection. Clients wait through it, and so does
        what they send. It takes a place in the unit's descriptor store for each connection, and one
        more: `FileDescriptorStoreMax=`. systemd closes what does not fit, and at the end of `systemctl
        stop` all of it, without the moment for one more request that an idle connection is left
        otherwise. Not without systemd, after a crash, or with `max-workers = 0`.""",
    )
    trusted_proxies: tuple[str, ...] = setting(
        PROXY,
        PROXIES,
        default=(),
        help="""the proxies that are believed about their clients: addresses, networks, "unix:\"""",
        text="""`"unix:"` is whoever connects by a UNIX socket. What `forwarded-headers` names is believed
        if it comes from one of these, and removed if it comes from anybody else, as are all fields that
        pretend to know the client (X-Real-IP and its like). List the proxies, not the networks that
        clients come from: a client in a listed network can name any address.""",
        unset="nobody is believed",
    )
    forwarded_headers: tuple[str, ...] = setting(
        PROXY,
        HEADERS,
        default=FORWARDED_HEADERS[:2],
        help="the header fields by which trusted proxies tell of their clients",
        text="""Name those that your proxies set on every request, and no others: what a proxy does not
        set, it passes on as the client sent it. `x-forwarded-for` becomes REMOTE_ADDR,
        `x-forwarded-proto` wsgi.url_scheme and HTTPS, `x-forwarded-host` HTTP_HOST and SERVER_NAME,
        `x-forwarded-port` SERVER_PORT, `x-forwarded-prefix` SCRIPT_NAME, which is taken off PATH_INFO if
        it is there. `forwarded`, alone, is the field of RFC 7239, which has address, scheme and host in
        one. What cannot be understood is answered 400.""",
    )
    proxy_hops: int = setting(
        PROXY,
        COUNT,
        default=0,
        low=0,
        high=100,
        help="how many proxies there are one behind the other, 0 if their addresses tell",
        text="""0 walks the addresses in X-Forwarded-For, or Forwarded, from the last to the first, over
        those of `trusted-proxies`, and believes the first that is none of them. A number is for proxies
        whose addresses nobody knows beforehand: N takes the Nth address from the end. It is right only
        if no client can go around one of them.""",
    )
    proxy_protocol: bool = setting(
        PROXY,
        SWITCH,
        default=False,
        help="whether trusted proxies begin their connections with a PROXY header",
        text="""Version 1 or 2 of the PROXY protocol: `send-proxy` of HAProxy, `proxy_protocol on` of
        nginx's stream module. On, a connection from one of `trusted-proxies` that begins otherwise is
        closed, and REMOTE_ADDR and REMOTE_PORT are what the header says. A header from anybody else is
        answered 400, like all that is no request. A listener can have its own: `proxy-protocol` of
        `[listen.NAME]`.""",
    )
    listen: tuple[Listen, ...] = ()
    """Empty: the sockets systemd hands over, and without any `DEFAULT_ADDRESS`."""
    source: str = ""
    """The file it was read from; "" for none."""

    def speaks_tls(self, name: str) -> bool:
        """Whether the connections of the listener of that name are TLS; it may have no table."""
        own = next((each.ssl for each in self.listen if each.name == name), None)
        return self.ssl if own is None else own

    def takes_introductions(self, listener: str) -> bool:
        """Whether trusted proxies begin their connections to this listener with a PROXY header."""
        own = {each.name: each.proxy_protocol for each in self.listen}.get(listener)
        return self.proxy_protocol if own is None else own


def _rows(of: type[Config | Listen]) -> tuple[Setting, ...]:
    """The table of a dataclass in the order of the manual: by section, then as declared."""
    return tuple(sorted(rows(of), key=lambda row: SECTIONS.index(row.section)))


SETTINGS = _rows(Config)
"""Every key of a file's top level; with "--" before it, every flag that bears a setting's name."""

LISTEN_SETTINGS = _rows(Listen)
"""Every key of a [listen.NAME] table."""

BY_NAME = {row.name: row for row in SETTINGS}
"""The rows by the names of their fields."""


def needs_restart(old: Config, new: Config) -> tuple[str, ...]:
    """The keys whose new value a reload cannot take over."""
    changed = (each for each in SETTINGS if getattr(old, each.name) != getattr(new, each.name))
    return tuple(each.key for each in changed if not each.reload)


# ── The way to the application's interpreter ──────────────────────────────────────────────────────────


def dump(config: Config) -> str:
    """`config` as one line of JSON."""
    return json.dumps(config, default=vars)


def load(text: str) -> Config:
    """The configuration that `dump` wrote, exactly. For our own text only: nothing is validated again."""
    values: dict[str, Any] = {name: _tuples(value) for name, value in json.loads(text).items()}
    values["listen"] = tuple(_load_listen(item) for item in values["listen"])
    return Config(**values)


def _load_listen(values: dict[str, Any]) -> Listen:
    address = values["address"]
    return Listen(**{**values, "address": None if address is None else Address(*address)})


def _tuples(value: Any) -> Any:
    """JSON knows lists only; every sequence of a configuration is a tuple."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
