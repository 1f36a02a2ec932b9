"""The shop's models after all migrations."""

from django.db import models


class Purchase(models.Model):
    status = models.CharField(max_length=40)
    total = models.IntegerField(default=0)
