"""A Django site: `manage.py DATABASE [write COUNT] [migrate NUMBER]`.

`write` creates orders and then pays each of them, with the models of the migrations that are applied.
"""

import sys

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader


def write(count: int) -> None:
    loader = MigrationLoader(connection)
    applied = [key for key in loader.applied_migrations if key[0] == "shop"]
    (model,) = loader.project_state(applied).apps.get_app_config("shop").get_models()
    for _ in range(count):
        order = model.objects.create(status="open")
        order.status = "paid"
        order.save()


database, *commands = sys.argv[1:]
settings.configure(
    INSTALLED_APPS=["shop"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
)
django.setup()
for command, argument in zip(commands[::2], commands[1::2], strict=True):
    if command == "write":
        write(int(argument))
    else:
        call_command("migrate", "shop", argument, verbosity=0)
