"""Apache Airflow provider for Databricks Lakebase."""

__version__ = "0.1.0"
