"""dbt's adapter ``lakebase``: dbt-postgres with a new database credential for each session.

dbt finds an adapter by its place in the namespace ``dbt.adapters``.
"""

from __future__ import annotations

from dbt.adapters.base.plugin import AdapterPlugin

from dbt.adapters.lakebase.connections import LakebaseConnectionManager, LakebaseCredentials
from dbt.adapters.lakebase.impl import LakebaseAdapter
from dbt.include import lakebase

Plugin = AdapterPlugin(
    adapter=LakebaseAdapter,  # type: ignore[arg-type]  # as dbt-postgres has it
    credentials=LakebaseCredentials,
    include_path=lakebase.PACKAGE_PATH,
    dependencies=["postgres"],
)

__all__ = ["LakebaseAdapter", "LakebaseConnectionManager", "LakebaseCredentials", "Plugin"]
