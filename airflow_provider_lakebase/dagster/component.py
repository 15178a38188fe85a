"""The resource as a component, for projects whose definitions are YAML."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

from dagster import Component, ComponentLoadContext, Definitions, Model, ResolutionContext, Resolvable, Resolver

# SqlComponent accepts subclasses of this class only, and Dagster exports it nowhere else.
from dagster.components.lib.sql_component.sql_client import SQLClient
from pydantic import BaseModel, Discriminator, Field, ValidationError, create_model, model_validator

from airflow_provider_lakebase.dagster.authentication import STRICT, Authentication
from airflow_provider_lakebase.dagster.resource import AnyAuthentication, LakebaseResource

_FIELDS = LakebaseResource.model_fields


def _resolve(context: ResolutionContext, model: Any) -> Any:
    if not isinstance(model, Authentication):
        return model  # a text, which the component refuses
    return type(model)(**context.resolve_value(model.model_dump()))


def _fields() -> dict[str, Any]:
    """Return the resource's fields. A component's may also be templates, so only the YAML's union is discriminated."""
    own = {name: (each.annotation, each) for name, each in _FIELDS.items()}
    tagged = Annotated[AnyAuthentication, Discriminator("auth_type")]
    kinds = Annotated[AnyAuthentication, Resolver(_resolve, model_field_type=tagged)]
    return {**own, "authentication": (kinds, Field(description=_FIELDS["authentication"].description))}


class _Strict(Model):
    model_config = STRICT


def _hide_inputs(attributes: Any, check: Callable[[Any], Any]) -> Any:
    """Raise errors of attributes without their values, and once for a field, which may also be a template.

    Dagster shows the inputs of errors, whatever the model's configuration says.
    """
    try:
        return check(attributes)
    except ValidationError as error:
        errors = [each for each in error.errors() if each["loc"][1:] != ("str",)]
        # The parts between are members of unions.
        places = [(*each["loc"][:1], *each["loc"][2:][-1:]) for each in errors]
        details: list[Any] = [{**each, "loc": place, "input": ...} for each, place in zip(errors, places, strict=True)]
        raise ValidationError.from_exception_data(error.title, details, hide_input=True) from None


@cache
def _hiding(model: type[BaseModel]) -> type[BaseModel]:
    wrap: Any = model_validator(mode="wrap")  # its type wants a method
    return create_model(model.__name__, __base__=model, __validators__={"_hide_inputs": wrap(_hide_inputs)})


_Fields = create_model("_Fields", __base__=_Strict, **_fields())


class LakebaseConnectionComponent(Component, Resolvable, _Fields, SQLClient):  # type: ignore[misc, valid-type]
    """A connection to Databricks Lakebase, for ``dagster.TemplatedSqlComponent`` and for assets.

    Its attributes are the fields of :class:`LakebaseResource`.
    """

    resource_key: str | None = Field(
        default=None, description="Key of the resource that assets of the project use, such as lakebase."
    )

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Return the model of the component's YAML; its errors show no values, as one may be a secret."""
        return _hiding(super().model())

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
