from __future__ import annotations

from django.db import models


class Guest(models.Model):
    name = models.CharField(max_length=80)
    signed = models.DateTimeField(auto_now_add=True)
