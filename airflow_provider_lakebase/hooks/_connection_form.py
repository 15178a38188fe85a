"""The connection form for Airflow before 3.2, built from the metadata that later versions read themselves.

Goes with Airflow 3.1.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_lakebase.get_provider_info import get_provider_info


def form_widgets() -> dict[str, Any]:
    """Return a form field for each extra field of the connection type."""
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import StringField
    from wtforms.validators import Optional, any_of

    widgets = {}
    for name, field in _connection_type()["conn-fields"].items():
        choices = field["schema"].get("enum", [])
        # An untouched field is saved as an empty string, which is not one of the choices.
        validators = [Optional(), any_of(choices)] if choices else []
        # Airflow 2 shows no drop-down list.
        named = f" One of {', '.join(choices)}." if choices else ""
        widgets[name] = StringField(
            lazy_gettext(field["label"]),
            validators=validators,
            description=field["description"] + named,
            widget=BS3TextFieldWidget(),
        )
    return widgets


def ui_field_behaviour() -> dict[str, Any]:
    """Return labels and placeholders of the standard connection fields."""
    behaviour = _connection_type()["ui-field-behaviour"]
    return {name.replace("-", "_"): value for name, value in behaviour.items()}


def _connection_type() -> dict[str, Any]:
    (connection_type,) = get_provider_info()["connection-types"]
    return dict(connection_type)
