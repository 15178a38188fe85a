from airflow_provider_lakebase import __version__ as version  # noqa: F401 - dbt asks for it by this name
