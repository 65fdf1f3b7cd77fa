"""The application that stardust serves: `app = "guestbook.wsgi"`."""

from __future__ import annotations

import os

from django.core.management import call_command
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "guestbook.settings")
application = get_wsgi_application()

# An example should run at once, so it makes its tables when it is loaded: with `preload`, the default, once
# in a generation, before any worker exists. A real deployment migrates before it reloads.
call_command("migrate", verbosity=0)
