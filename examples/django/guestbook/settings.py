"""Settings of the guest book. What differs between machines comes from the environment."""

from __future__ import annotations

import os
from pathlib import Path

TOP = Path(__file__).parents[1]

# The example's key is public. A real one comes from the environment, or from a systemd credential.
SECRET_KEY = os.environ.get("GUESTBOOK_SECRET", "an example, not a secret, and long enough to be accepted")
DEBUG = False
ALLOWED_HOSTS = ["*"]

ROOT_URLCONF = "guestbook.urls"
INSTALLED_APPS = ["guestbook"]
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("GUESTBOOK_DATABASE", TOP / "guestbook.sqlite3"),
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
