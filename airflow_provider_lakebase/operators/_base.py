"""Arguments that operators, sensors and transfers share, and the hook they lead to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_lakebase.core.connection.fields import DEFAULT_CONN_ID
from airflow_provider_lakebase.hooks._arguments import create_hook, merge_hook_params
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook


class LakebaseOperatorMixin(BaseOperator):
    """The connection of a task. All operators, sensors and transfers of this provider take these arguments.

    :param lakebase_conn_id: Airflow connection of type ``lakebase`` (templated)
    :param endpoint: endpoint, in place of the connection's (templated)
    :param database: database, in place of the connection's (templated)
    :param read_only: whether sessions only read, on the read-only host if there is one; by default as the connection
        says
    :param hook_params: further arguments of the hook, such as ``{"options": "-c statement_timeout=5min"}`` (templated)
    :raises LakebaseSettingsError: if ``hook_params`` repeats another argument or names a connection
    """

    # An operator, although it is mixed in: Airflow looks for default_args and for the arguments of partial() only in
    # the signatures of operators.
    template_fields: Sequence[str] = ("lakebase_conn_id", "endpoint", "database", "hook_params")

    def __init__(
        self,
        *,
        lakebase_conn_id: str = DEFAULT_CONN_ID,
        endpoint: str | None = None,
        database: str | None = None,
        read_only: bool | None = None,
        hook_params: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lakebase_conn_id = lakebase_conn_id
        self.endpoint = endpoint
        self.database = database
        self.read_only = read_only
        self.hook_params: Any = hook_params
        if isinstance(hook_params, Mapping):  # else a template, which is checked when the task runs
            self._hook_arguments()

    def _hook_arguments(self) -> dict[str, Any]:
        return merge_hook_params(
            self.hook_params, endpoint=self.endpoint, database=self.database, read_only=self.read_only
        )

    def _create_hook(self) -> LakebaseHook:
        return create_hook(
            self.lakebase_conn_id,
            self.hook_params,
            endpoint=self.endpoint,
            database=self.database,
            read_only=self.read_only,
        )

    @cached_property
    def _hook(self) -> LakebaseHook:
        return self._create_hook()

    def on_kill(self) -> None:
        """Cancel the running statement on the server."""
        self._hook.cancel()
