"""What dbt reads of the adapter: a project without macros, because dbt-postgres's apply."""

from pathlib import Path

PACKAGE_PATH = str(Path(__file__).parent)
