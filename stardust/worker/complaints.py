"""What is wrong with the application, as records of the journal: one each, however long the traceback is.

Without the journal these texts go to `wsgi.errors`, as PEP 3333 wants it. Runs in the application's
interpreter too.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Optional

from stardust.base.pristine import os
from stardust.http1.head import Head
from stardust.logs.log import NO_FIELDS, Fields, Log
from stardust.wsgi.environ import Environ
from stardust.wsgi.gateway import Report

# What request ids are made of: hexadecimal digits, UUIDs, base64, trace headers, nginx's and Amazon's own.
# Nothing in it can end a field, or pose as something else where it is shown.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:;=/+@-]{1,128}")

_OURS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def recorder(log: Log) -> Report:
    """For `Exchange`: whatever it reports becomes an error in `log`."""

    def report(head: Optional[Head], environ: Environ, text: str, error: Optional[BaseException]) -> None:
        log.error(text, fields={**of_request(head, environ), **of_frame(error)})

    return report


def of_request(head: Optional[Head], environ: Environ) -> Fields:
    """The fields that say which request it was; none if it could not be read."""
    if head is None:
        return NO_FIELDS
    request = {"STARDUST_REQUEST": f"{head.method} {head.target} {head.version}"}
    identity = environ.get("HTTP_X_REQUEST_ID")  # the application may have made anything of it
    if not isinstance(identity, str) or not _REQUEST_ID.fullmatch(identity):
        return request
    return {**request, "REQUEST_ID": identity}


def of_frame(error: Optional[BaseException]) -> Fields:
    """The fields that say where it was raised: the innermost frame that is not the server's, if any."""
    place: Fields = NO_FIELDS
    trace: Optional[TracebackType] = None if error is None else error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith(_OURS):
            place = {
                "CODE_FILE": code.co_filename,
                "CODE_LINE": trace.tb_lineno,
                "CODE_FUNC": code.co_name,
            }
        trace = trace.tb_next
    return place
