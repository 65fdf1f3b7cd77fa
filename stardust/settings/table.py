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
from typing import Any, Optional, Union

from stardust.base import address as addresses
from stardust.base.address import Address
from stardust.base.records import dataclass
from stardust.settings.kinds import (
    ADDRESS,
    AUTO,
    AUTOMATIC,
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
    HOOK,
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

APPLICATION = Section("Application", "What the server runs, and the interpreter and environment it runs in.")
WORKERS = Section("Workers", "How many processes serve requests, and how long each of them lives.")
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
    "Encrypted connections and certificates. docs/tls.md says what the files must contain, how to renew "
    "them while the server runs, and what the application learns.",
)
LOGS = Section("Logs", "What the server writes, and where. After a log rotation, SIGUSR1 reopens the files.")
PROCESS = Section(
    "Process", "The privileges of the processes, and the socket that controls the server at run time."
)
PROXY = Section(
    "Proxies",
    "Proxies between the clients and the server, and what the server believes of them.",
)
LISTENERS = Section(
    "Listeners",
    "Where the server listens. Each listener is a table of its own. The tables come last: in TOML, every "
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
        text="""`:port` listens on every interface. A path is a UNIX socket. If its file was left behind by a
        server that no longer runs, the server replaces it; if another process listens on it, the server
        refuses to start. `@name` is an abstract UNIX socket, which has no file. Sockets from systemd are
        matched by name: `FileDescriptorName=NAME` of the socket unit belongs to `[listen.NAME]`. The server
        binds the address only if systemd passes no socket of that name.""",
        unset="the socket comes from systemd",
    )
    mode: Optional[int] = setting(
        LISTENERS,
        MODE,
        default=None,
        low=0,
        high=0o777,
        help="permissions of a UNIX socket's file",
        text="""Users with write permission may connect. Write octal text, or a TOML number with `0o` before
        it.""",
        unset="0660",
    )
    owner: str = setting(
        LISTENERS,
        TEXT,
        default="",
        help="owner of a UNIX socket's file, by name or number",
        unset="the user that starts the server",
    )
    group: str = setting(
        LISTENERS,
        TEXT,
        default="",
        help="group of a UNIX socket's file, by name or number",
        text="""The usual way to let a proxy connect: `group = "www-data"` and `mode = "0660"`.""",
        unset="the group of the user that starts the server",
    )
    ssl: Optional[bool] = setting(
        LISTENERS,
        OWN_SWITCH,
        default=None,
        help="whether this listener speaks TLS",
        text="""One server can do both: set `ssl = true` in the table for port 443, and leave it out in the
        table for port 80.""",
        unset="as the server's ssl",
    )
    proxy_protocol: Optional[bool] = setting(
        LISTENERS,
        OWN_SWITCH,
        default=None,
        help="whether trusted proxies begin their connections with a PROXY header",
        text="Like the server's `proxy-protocol`, for this listener alone.",
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
        text="""`myapp.wsgi:application` is the object `application` of the module `myapp.wsgi`.
        `myapp:create_app()` is what that function returns; it may have arguments that are literals:
        `myapp:create_app("prod", debug=False)`. `srv/app.py` is a file, relative to `chdir`.
        Without a name, the server looks for `application`, then for `app`. `paste:srv/site.ini#shop` is the
        application `shop` of a file of PasteDeploy, or its `main` without a name; a section `[loggers]` in
        it sets up logging. On the command line, give the application as the argument without a flag.""",
        unset="none, it must be given",
    )
    python: str = setting(
        APPLICATION,
        COMMAND,
        default="",
        help="the interpreter that runs the application",
        text="""Give the interpreter of the application's virtual environment, such as
        `/srv/myapp/.venv/bin/python`. Its version of Python may differ from the server's (3.9 or newer), and
        it needs none of the server's packages. A name without a slash is looked up on `PATH`.""",
        unset="the server's own",
    )
    chdir: str = setting(
        APPLICATION,
        PATH,
        default="",
        help="the working directory of the application",
        text="Modules are imported from here first, after `pythonpath`.",
        unset="the directory where the server was started",
    )
    pythonpath: tuple[str, ...] = setting(
        APPLICATION,
        TEXTS,
        default=(),
        help="directories to import from, before all others",
        text="Relative paths start at `chdir`.",
    )
    env_file: tuple[str, ...] = setting(
        APPLICATION,
        FILES,
        default=(),
        help="files of NAME=VALUE lines for the application's environment",
        text="""The format is that of python-dotenv, including `${NAME}`. The server reads the files in order,
        and again at every reload. Later files override earlier ones, and all of them override the server's
        environment. `credential:NAME` is the credential that the service's unit passes with
        `LoadCredential=NAME:PATH`; only root needs to be able to read the file at PATH.""",
    )
    environment: tuple[tuple[str, str], ...] = setting(
        APPLICATION,
        PAIRS,
        default=(),
        help="variables of the application's environment",
        text="""They override `env-file`. Flags add to the variables of the file. If there are several
        variables, write a table of its own, `[environment]`, at the end of the file.""",
    )
    preload: Union[bool, str] = setting(
        APPLICATION,
        AUTOMATIC,
        default=AUTO,
        help="import the application once, and fork the workers from it",
        text="""The workers then share its memory and start in milliseconds. `"auto"` does so unless the
        application, once imported, holds what does not survive a fork: threads, connections, child processes,
        an event loop. In that case every worker imports it for itself, and the log and `stardustctl status`
        say what was found. Threads that their owner starts again after a fork do not count. `true` forks all
        the same, with a warning; `false` never does. A reload loads new code in each case. `stardust
        --check-config --load` says what would happen.""",
    )
    after_fork: str = setting(
        APPLICATION,
        HOOK,
        default="",
        help="function to call in each worker before it is ready",
        text="""`myapp.hooks:connect` is `connect` in the module `myapp.hooks`. It is called without arguments
        when the application is loaded; connect to databases and start threads there. If it raises an
        exception, the worker has failed, as if it could not load the application. Functions registered with
        `os.register_at_fork(after_in_child=…)` run as well, earlier, if the application was imported before
        the fork.""",
        unset="none",
    )
    before_exit: str = setting(
        APPLICATION,
        HOOK,
        default="",
        help="function to call in a worker that leaves, after its last response",
        text="""It is called without arguments and has what is left of `graceful-timeout`. A worker that is
        killed does not call it. Functions registered with `atexit` run as well, afterwards.""",
        unset="none",
    )
    after_death: str = setting(
        APPLICATION,
        HOOK,
        default="",
        help="function to call when a worker has ended, in a process of its own",
        text="""It is called with the worker's process id and the cause, a text such as `exit code 0`,
        `killed by SIGKILL` or `request-timeout`, however the worker ended. The process is forked for this
        call, from the one that workers are forked from, and ends after it, at the latest after
        `graceful-timeout`. For instance, it can tell prometheus_client (`mark_process_dead`).""",
        unset="none",
    )
    max_workers: int = setting(
        WORKERS,
        COUNT,
        default=10,
        low=0,
        high=1000,
        help="worker processes",
        text="""Each worker serves one request per thread at a time. Slow clients do not hold it up. 0 serves
        from a single process that never forks, for debugging: `breakpoint()` and `input()` have the terminal,
        Ctrl-C ends the server once its requests are done, and a second Ctrl-C ends it at once.""",
    )
    threads: int = setting(
        WORKERS,
        COUNT,
        default=1,
        low=1,
        high=1024,
        help="application threads of a worker",
        text="""With 1, the application never runs in a second thread of the server (`wsgi.multithread` is
        false). The worker has another thread, which gives connections to other workers while the application
        works, but it never calls the application. Set more for an application that mostly waits for other
        services and is thread-safe.""",
    )
    max_reqs_per_child: int = setting(
        WORKERS,
        COUNT,
        default=1000,
        low=0,
        help="requests a worker serves before it is replaced",
        text="""This limits the effect of a slow memory leak. No request is lost: at the limit, the worker
        accepts no more connections and serves those it has. 0: no limit.""",
    )
    min_reqs_per_child: int = setting(
        WORKERS,
        COUNT,
        default=0,
        low=0,
        help="if set, each worker draws its limit between this and max-reqs-per-child",
        text="""So workers that started together are not replaced together. 0: all workers have the same
        limit.""",
    )
    spawn_interval: float = setting(
        WORKERS,
        SECONDS,
        default=0.0,
        low=0,
        high=HOUR,
        help="shortest time between two starts of a worker",
        text="A reload replaces one worker per interval. 0: no delay.",
    )
    main_process_delay: float = setting(
        WORKERS,
        SECONDS,
        default=0.1,
        low=SHORTEST,
        high=MINUTE,
        help="shortest time before a worker that died is replaced",
        text="The delay doubles, up to 30 seconds, while workers keep dying.",
    )
    timeout: float = setting(
        TIMES,
        SECONDS,
        default=300.0,
        low=SHORTEST,
        high=DAY,
        help="how long a client may neither send nor read a byte",
        text="""The time starts again with every byte, while a request's body arrives and while a response is
        sent.""",
    )
    header_timeout: float = setting(
        TIMES,
        SECONDS,
        default=30.0,
        low=SHORTEST,
        high=DAY,
        help="how long the whole head of a request may take",
        text="After that the client gets a 408.",
    )
    handshake_timeout: float = setting(
        TIMES,
        SECONDS,
        default=10.0,
        low=SHORTEST,
        high=DAY,
        help="how long everything before HTTP may take",
        text="""That is the PROXY header (`proxy-protocol`) and the TLS handshake (`ssl`) together. After that
        the server closes the connection without an answer.""",
    )
    keepalive_timeout: float = setting(
        TIMES,
        SECONDS,
        default=2.0,
        low=SHORTEST,
        high=DAY,
        help="how long an idle connection waits for its next request",
        text="""An idle connection does not occupy a worker. Behind a proxy, set more than the time for which
        the proxy keeps idle connections, so that the proxy is the one that closes them.""",
    )
    request_timeout: float = setting(
        TIMES,
        SECONDS,
        default=0.0,
        low=0,
        high=DAY,
        help="how long the application may work on a request",
        text="""After that the server logs the stacks of all threads of the worker and replaces the worker;
        the client gets no answer. Other connections of the worker have gone to other workers long before.
        Not with `max-workers = 0`. 0: no limit.""",
    )
    boot_timeout: float = setting(
        TIMES,
        SECONDS,
        default=60.0,
        low=SHORTEST,
        high=DAY,
        help="how long the application may take to load",
        text="After that the start, or the reload, has failed.",
    )
    graceful_timeout: float = setting(
        TIMES,
        SECONDS,
        default=30.0,
        low=0,
        high=DAY,
        help="how long a worker that leaves may take to finish its requests",
        text="Applies to a stop, a reload, and the replacement of a worker. After that the worker is killed.",
    )
    heartbeat_timeout: float = setting(
        TIMES,
        SECONDS,
        default=30.0,
        low=0,
        high=DAY,
        help="how long an idle worker may leave a ping unanswered",
        text="After that the worker is replaced. A worker that runs a request gets no pings. 0: no limit.",
    )
    idle_timeout: float = setting(
        TIMES,
        SECONDS,
        default=0.0,
        low=0,
        high=DAY,
        help="how long nobody may be connected before the server exits",
        text="""The next connection starts the server again. So this works only if systemd passes all
        listeners (systemd.socket(5)), and not with `max-workers = 0`. A connection that waits for its next
        request counts as connected. No connection is lost: if a client connects while the server exits, the
        next start serves it. The exit code is 0, so the unit must not have `Restart=always`. 0: the server
        never exits by itself.""",
    )
    max_keepalive_reqs: int = setting(
        LIMITS,
        COUNT,
        default=1,
        low=0,
        help="requests on one connection",
        text="""1 closes every connection after its first response; 0: no limit. Raise it if clients or a
        proxy reuse connections: idle connections do not occupy a worker.""",
    )
    max_request_line: int = setting(
        LIMITS,
        BYTES,
        default=8190,
        low=64,
        high=MIB,
        help="longest request line",
        text="A client that exceeds it gets a 414.",
    )
    max_header_count: int = setting(
        LIMITS,
        COUNT,
        default=100,
        low=1,
        high=10000,
        help="most header fields of a request",
        text="A client that exceeds it gets a 431.",
    )
    max_header_bytes: int = setting(
        LIMITS,
        BYTES,
        default=32 * KIB,
        low=256,
        high=16 * MIB,
        help="largest head of a request, including the request line",
        text="A client that exceeds it gets a 431.",
    )
    max_body: int = setting(
        LIMITS,
        BYTES,
        default=GIB,
        low=0,
        high=PIB,
        help="largest body of a request",
        text="""A client that exceeds it gets a 413. The server reads a body completely before it calls the
        application; beyond 1 MiB, the body waits in an unlinked temporary file. 0: no limit.""",
    )
    max_response_buffer: int = setting(
        LIMITS,
        BYTES,
        default=GIB,
        low=0,
        high=PIB,
        help="how much of a response is buffered for a slow reader before the application must wait",
        text="Beyond 1 MiB, it waits in an unlinked temporary file.",
    )
    max_buffer_memory: int = setting(
        LIMITS,
        BYTES,
        default=64 * MIB,
        low=0,
        high=PIB,
        help="memory of a worker for all waiting bodies and responses",
        text="""The rest waits in unlinked temporary files. The first 8 KiB of each are not counted, and
        neither is what the application itself holds.""",
    )
    min_body_rate: int = setting(
        LIMITS,
        BYTES,
        default=240,
        low=0,
        high=GIB,
        help="lowest average rate of a request's body, in bytes per second",
        text="""The average counts from the end of the head. The first 5 seconds are free, and a worker checks
        every 5 seconds. A client that is slower gets a 408. Time during which the worker itself does not read
        does not count. 0: no limit.""",
    )
    min_response_rate: int = setting(
        LIMITS,
        BYTES,
        default=240,
        low=0,
        high=GIB,
        help="lowest average rate at which a client reads a waiting response, in bytes per second",
        text="""The average counts from the moment when the whole response is available. The first 20 seconds
        are free, because a slow client reads its bytes in a few large steps. If a client is slower, the
        server resets the connection. An application that sends slowly is not affected. 0: no limit.""",
    )
    max_connections: int = setting(
        LIMITS,
        COUNT,
        default=10000,
        low=0,
        help="connections of a worker",
        text="""At the limit, the connection that has been idle longest makes room for a new one. If none is
        idle, new connections wait for another worker, or in the kernel. A worker never accepts more
        connections than its descriptors allow (`LimitNOFILE=`); an eighth of them and 32 more are kept for
        temporary files and the application. 0: as many as the descriptors allow.""",
    )
    max_connections_per_peer: int = setting(
        LIMITS,
        COUNT,
        default=0,
        low=0,
        help="connections of a worker with one client address",
        text="""One more gets a 503, whatever it asks for, and is closed. An IPv6 network of 64 bits counts as
        one address. Connections over UNIX sockets and of `trusted-proxies` do not count, and connections
        given by another worker are never refused. Do not set this behind a proxy that is not trusted: all
        clients then have the address of the proxy. 0: no limit.""",
    )
    underscore_headers: str = setting(
        LIMITS,
        CHOICE,
        default="drop",
        choices=("drop", "refuse"),
        help="what happens to request header fields with an underscore in their name",
        text="""An application cannot tell `X_User` from `X-User`, which a proxy may vouch for. `drop`: the
        application does not see such fields. `refuse`: the client gets a 400.""",
    )
    ssl: bool = setting(
        TLS,
        SWITCH,
        default=False,
        help="speak TLS at every listener that does not set its own ssl",
        text="""A listener sets its own by `ssl` in its table. TLS connections cannot move from worker to
        worker: docs/tls.md says when that matters.""",
    )
    ssl_cert_file: tuple[str, ...] = setting(
        TLS,
        FILES,
        default=(),
        help="the certificate, in PEM, followed by those of its issuers",
        text="""If there are several certificates, the name that a client asks for (SNI) selects one; the
        first serves clients that ask for none of the names. If a file changes, new connections use the new
        certificate.""",
    )
    ssl_key_file: tuple[str, ...] = setting(
        TLS,
        FILES,
        default=(),
        help="the private key of the certificate, in PEM; several in the same order as the certificates",
        text="""Only its owner and group may have permission to read it. If this is not set, each certificate
        file also contains its key.""",
    )
    ssl_key_password_file: str = setting(
        TLS,
        FILE,
        default="",
        help="file whose first line is the password of the private keys",
        unset="none, the keys are not encrypted",
    )
    ssl_ca_file: str = setting(
        TLS,
        FILE,
        default="",
        help="certificates of authorities, in PEM",
        text="""They complete the chain of a certificate whose file lacks its issuers. Client certificates
        must come from them, unless `ssl-client-ca-file` is set.""",
        unset="none",
    )
    ssl_client_ca_file: str = setting(
        TLS,
        FILE,
        default="",
        help="certificates of the authorities that may issue client certificates, in PEM",
        unset="those of ssl-ca-file",
    )
    ssl_verify_mode: str = setting(
        TLS,
        VERIFICATION,
        default="none",
        choices=("none", "optional", "required"),
        help="whether the server asks clients for a certificate",
        text="""`optional`: a client may have no certificate, but not an invalid one. `SSL_CLIENT_VERIFY`
        tells the application the result. You may also write the numbers of the Perl server: 0, 1, 3.""",
    )
    ssl_min_version: str = setting(
        TLS,
        CHOICE,
        default="1.2",
        choices=("1.2", "1.3"),
        help="oldest version of TLS that is allowed",
        text="Versions before 1.2 cannot be allowed (RFC 8996).",
    )
    ssl_ciphers: str = setting(
        TLS,
        TEXT,
        default="ECDHE+AESGCM:ECDHE+CHACHA20",
        help="ciphers of TLS 1.2, as a list for OpenSSL (openssl-ciphers(1))",
        text="""The default list has ciphers with forward secrecy and authenticated encryption only. TLS 1.3
        has its own ciphers, all of that kind.""",
    )
    log_level: str = setting(
        LOGS,
        CHOICE,
        default="info",
        choices=("debug", "info", "warning", "error", "critical"),
        help="lowest severity of messages that the server logs",
        text="""Messages go to standard error, and to the journal if systemd has connected standard error to
        it.""",
    )
    access_log: str = setting(
        LOGS,
        PATH,
        default="",
        help="""file that gets one line per request; "-" is standard output""",
        text="Refused requests, and those whose worker was killed, have a line too.",
        unset="no access log",
    )
    access_log_format: str = setting(
        LOGS,
        CHOICE,
        default="combined",
        choices=("common", "combined", "json"),
        help="format of the lines of the access log",
        text="`common` and `combined` are Apache's formats; `json` is one object per line.",
    )
    user: str = setting(
        PROCESS,
        TEXT,
        default="",
        help="user the application runs as, by name or number",
        text="""For a server started by root. Under systemd, use `User=` or `DynamicUser=` of the unit
        instead. The application finds the user's `HOME`, `USER` and `LOGNAME` in its environment, unless
        `environment` sets them.""",
        unset="the user that starts the server",
    )
    group: str = setting(
        PROCESS,
        TEXT,
        default="",
        help="group the application runs as, by name or number",
        unset="the group of `user`, or of the user that starts the server",
    )
    umask: Optional[int] = setting(
        PROCESS,
        MODE,
        default=None,
        low=0,
        high=0o777,
        help="permissions that new files of the application do not get",
        text="Write octal text, or a TOML number with `0o` before it.",
        unset="inherited",
    )
    control_socket: str = setting(
        PROCESS,
        PATH,
        default="",
        reload=False,
        help="the socket that stardustctl connects to",
        text="""Unset, it is `control` in `$RUNTIME_DIRECTORY`. Without that directory, it is a
        file named after the configuration file, in `/run/stardust` (root) or `$XDG_RUNTIME_DIR/stardust`
        (others). Without a configuration file as well, there is no control socket, only signals.""",
    )
    backlog: int = setting(
        LISTENERS,
        COUNT,
        default=2048,
        low=1,
        high=65535,
        help="connections that may wait in the kernel for a listener",
        text="""The kernel reduces it to `net.core.somaxconn`. Sockets from systemd have their own value
        (`Backlog=` of the socket unit).""",
    )
    ipv6: bool = setting(
        LISTENERS,
        SWITCH,
        default=True,
        help="let the wildcard address accept IPv6 as well as IPv4",
        text="If off, `:port` accepts IPv4 only, and an IPv6 address is an error.",
    )
    store_connections: bool = setting(
        LISTENERS,
        SWITCH,
        default=False,
        help="keep idle connections open through a restart of the service",
        text="""When the server stops, it gives its idle connections to systemd, and the next start takes them
        back: `systemctl restart` then closes no connection. Clients, and what they send meanwhile, wait for
        the start. Each connection takes a place in the unit's descriptor store (`FileDescriptorStoreMax=`),
        and all of them together one more. systemd closes what does not fit. At the end of `systemctl stop` it
        closes all of them, without the time for one more request that idle connections have otherwise. This
        does not work without systemd, after a crash, or with `max-workers = 0`.""",
    )
    trusted_proxies: tuple[str, ...] = setting(
        PROXY,
        PROXIES,
        default=(),
        help="""proxies that the server believes about their clients: addresses, networks, "unix:\"""",
        text="""`"unix:"` is everybody who connects over a UNIX socket. The server believes the fields of
        `forwarded-headers` if they come from one of these proxies. It removes them if they come from anybody
        else, and with them all other fields that claim to know the client (X-Real-IP and the like). List the
        proxies, not the networks that clients come from: a client in a listed network can claim any
        address.""",
        unset="nobody is believed",
    )
    forwarded_headers: tuple[str, ...] = setting(
        PROXY,
        HEADERS,
        default=FORWARDED_HEADERS[:2],
        help="the header fields by which trusted proxies describe their clients",
        text="""Name the fields that your proxies set on every request, and no others: a proxy that does not
        set a field passes on what the client sent. `x-forwarded-for` sets REMOTE_ADDR, `x-forwarded-proto`
        wsgi.url_scheme and HTTPS, `x-forwarded-host` HTTP_HOST and SERVER_NAME, `x-forwarded-port`
        SERVER_PORT. `x-forwarded-prefix` sets SCRIPT_NAME, which is removed from PATH_INFO if it is there.
        `forwarded`, which must stand alone, is the field of RFC 7239 with address, scheme and host in one. If
        the server cannot understand a field, the answer is 400.""",
    )
    proxy_hops: int = setting(
        PROXY,
        COUNT,
        default=0,
        low=0,
        high=100,
        help="number of proxies in a row, 0 to recognize them by their addresses",
        text="""0 reads the addresses in X-Forwarded-For, or Forwarded, from the last to the first, skips
        those of `trusted-proxies`, and takes the first other one as the client. A number N is for proxies
        whose addresses you do not know: it takes the Nth address from the end. Use it only if no client can
        bypass one of the proxies.""",
    )
    proxy_protocol: bool = setting(
        PROXY,
        SWITCH,
        default=False,
        help="whether trusted proxies begin their connections with a PROXY header",
        text="""Version 1 or 2 of the PROXY protocol: `send-proxy` of HAProxy, `proxy_protocol on` of nginx's
        stream module. If set, REMOTE_ADDR and REMOTE_PORT are those of the header. A connection from one of
        `trusted-proxies` without a header is closed. A header from anybody else gets a 400, like everything
        that is not a request. `proxy-protocol` in `[listen.NAME]` sets this for one listener.""",
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
