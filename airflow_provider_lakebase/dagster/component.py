"""The resource as a component, for projects whose definitions are YAML."""

from __future__ import annotations

from typing import Annotated, Any

from dagster import Component, ComponentLoadContext, Definitions, Model, ResolutionContext, Resolvable, Resolver

# SqlComponent accepts subclasses of this class only, and Dagster exports it nowhere else.
from dagster.components.lib.sql_component.sql_client import SQLClient
from pydantic import Field, create_model

from airflow_provider_lakebase.dagster.authentication import Authentication
from airflow_provider_lakebase.dagster.resource import AnyAuthentication, LakebaseResource

_FIELDS = LakebaseResource.model_fields


def _resolve(context: ResolutionContext, model: Authentication) -> Authentication:
    return type(model)(**context.resolve_value(model.model_dump()))


def _fields() -> dict[str, Any]:
    """Return the resource's fields. A component's may also be templates, which a discriminated union cannot be."""
    own = {name: (each.annotation, each) for name, each in _FIELDS.items()}
    kinds = Annotated[AnyAuthentication, Resolver(_resolve, model_field_type=AnyAuthentication)]
    return {**own, "authentication": (kinds, Field(description=_FIELDS["authentication"].description))}


_Fields = create_model("_Fields", __base__=Model, **_fields())


class LakebaseConnectionComponent(Component, Resolvable, _Fields, SQLClient):  # type: ignore[misc, valid-type]
    """A connection to Databricks Lakebase, for ``dagster.TemplatedSqlComponent`` and for assets.

    Its attributes are the fields of :class:`LakebaseResource`.
    """

    resource_key: str | None = Field(
        default=None, description="Key of the resource that assets of the project use, such as lakebase."
    )

    @property
    def resource(self) -> LakebaseResource:
        """The resource of the same fields."""
        return LakebaseResource(**{name: getattr(self, name) for name in _FIELDS})

    def connect_and_execute(self, sql: str) -> None:
        """Run SQL in one transaction.

        :param sql: one or more statements
        """
        self.resource.connect_and_execute(sql)

    def build_defs(self, context: ComponentLoadContext) -> Definitions:
        """Return the resource, if it has a key.

        :param context: of the component, by Dagster
        """
        # A template such as {{ env.SECRET }} is text by now, which Dagster must not store.
        return Definitions(resources={self.resource_key: self.resource.without_config()} if self.resource_key else {})
