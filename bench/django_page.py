"""The application of the load "django": examples/django with 20 guests in its SQLite database, on one page.

The database lies in the folder that a measurement has for itself.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "django"))
os.environ["GUESTBOOK_DATABASE"] = str(Path(os.environ.get("BENCH_SCRATCH", "/tmp"), "guests.sqlite3"))

from guestbook.wsgi import application  # noqa: I001 - makes its tables, and only now can models be had
from guestbook.models import Guest

__all__ = ["application"]

if not Guest.objects.exists():
    Guest.objects.bulk_create(Guest(name=f"Guest <{number}> & family") for number in range(20))
