"""Configuration of Sphinx, for scripts/docs."""

from __future__ import annotations

from importlib import import_module

from airflow_provider_lakebase import __version__

_OURS = "airflow_provider_lakebase"

project = "airflow-provider-lakebase"
release = version = __version__
copyright = "the authors, under Apache-2.0"
html_title = f"{project} {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {name: {"sidebar-item-font-size": "75%"} for name in ("light_css_variables", "dark_css_variables")}
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
# autodoc resolves annotations in a module's namespace; these names are imported there only for type checkers.
_VALUES = (
    "core.bulk.export.ExportResult",
    "core.bulk.load.LoadResult",
    "emulator.postgres_port.gate.Login",
    "emulator.api.http.Request",
    "core.grants.request.RoleRequest",
    "core.session.connections.AsyncLakebaseSession",
    "core.session.connections.LakebaseSession",
    "core.session.pool.AsyncLakebaseConnectionPool",
    "core.session.pool.LakebaseConnectionPool",
    "core.workspace.endpoints.EndpointStatus",
)
for _module in ("hooks.lakebase", "emulator"):
    for _value in _VALUES:
        _home, _, _name = _value.rpartition(".")
        setattr(import_module(f"{_OURS}.{_module}"), _name, getattr(import_module(f"{_OURS}.{_home}"), _name))

# The build does not use the network, so it cannot resolve names of other projects.
nitpick_ignore = [
    ("py:class", "Asset"),  # airflow
    # The docstrings say what they take.
    *(("py:class", name) for name in ("Duration", "Time", "IfExists", "Cadence", "Access", "OnChange", "Route")),
    # databricks-sdk
    *(("py:class", name) for name in ("Branch", "Database", "Endpoint", "Role", "Snapshot", "SnapshotSchedule")),
    *(("py:class", name) for name in ("CdfConfig", "CdfStatus")),  # databricks-sdk
    ("py:class", "AsyncEngine"),  # sqlalchemy
    ("py:class", "Connection"),  # airflow
    ("py:class", "Context"),  # airflow
    ("py:class", "Engine"),  # sqlalchemy
    ("py:class", "URL"),  # sqlalchemy
    ("py:class", "XComArg"),  # airflow
    ("py:class", "os.PathLike"),  # the standard library
    ("py:class", "timedelta"),  # the standard library
    ("py:exc", "AirflowException"),  # airflow
    ("py:exc", "AirflowFailException"),  # airflow
    ("py:func", "pandas.read_sql"),  # pandas
    ("py:func", "polars.read_database"),  # polars
]
nitpick_ignore_regex = [
    # Airflow, drivers, libraries, the standard library
    (r"py:.*", r"(airflow|psycopg|psycopg_pool|pyarrow|sqlalchemy|collections|datetime|pathlib|types)\..*"),
]
