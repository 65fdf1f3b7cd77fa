"""The application of the loads with Django: examples/django, a page made of a template and 20 rows of SQLite.

Its database lies where the example has it. Importing this once makes it; then many may import it at a time.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROWS = 20

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "django"))

from guestbook.wsgi import application as application  # type: ignore  # noqa: E402, I001
from django.db import connections  # type: ignore  # noqa: E402
from guestbook.models import Guest  # type: ignore  # noqa: E402

if Guest.objects.count() < ROWS:
    Guest.objects.bulk_create(Guest(name=f"Guest {number}") for number in range(ROWS))
connections.close_all()  # a connection to SQLite must not be carried over a fork
