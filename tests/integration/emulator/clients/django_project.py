"""Django: migrates, writes and reads, and makes and removes a database for tests."""

import os

import django
from databricks.sdk import WorkspaceClient
from django.conf import settings
from django.core.management import call_command

workspace = WorkspaceClient()
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "localhost",
            "PORT": os.environ["PGPORT"],
            "NAME": "databricks_postgres",
            "USER": workspace.config.client_id,
            "PASSWORD": workspace.postgres.generate_database_credential(os.environ["LAKEBASE_ENDPOINT"]).token,
            "OPTIONS": {"sslmode": "verify-full", "sslrootcert": os.environ["PGSSLROOTCERT"]},
        }
    },
)
django.setup()
call_command("migrate", verbosity=0)

from django.contrib.auth.models import User  # noqa: E402 - needs the settings
from django.db import connection  # noqa: E402

User.objects.create_user("a user")
assert User.objects.filter(username__contains="user").count() == 1
connection.creation.create_test_db(verbosity=0, autoclobber=True)
connection.creation.destroy_test_db("databricks_postgres", verbosity=0)
