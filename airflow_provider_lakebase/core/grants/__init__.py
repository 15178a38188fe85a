"""Postgres roles of Databricks identities, and the privileges granted to them."""
