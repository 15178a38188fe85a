"""Derive the arguments of an operator from the options of a load or export: constructor, templates, documentation."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_lakebase.core.bulk.option_signature import (  # noqa: TID253 - it is light
    add_documentation,
    add_parameters,
)
from airflow_provider_lakebase.core.bulk.options import Option  # noqa: TID253 - it is light


def take_options(operator: type[Any], options: Sequence[Option]) -> None:
    """Add options to an operator class that is being created, before Airflow wraps its constructor.

    The constructor takes them as keyword arguments and stores them in attributes of the same names. All but booleans
    are template fields. Their documentation replaces ``:param options:`` in the docstring of the class.

    :param operator: a class that defines ``__init__`` with further keyword arguments
    :param options: the options to add
    """
    templated = [each.name for each in options if each.annotation is not bool]
    operator.template_fields = (*operator.template_fields, *templated)
    operator.option_names = (*operator.option_names, *(each.name for each in options))
    operator.__init__ = _taking(operator.__init__, options)
    operator.__doc__ = add_documentation(
        operator.__doc__,
        [(each.name, each.description + (" (templated)" if each.name in templated else "")) for each in options],
    )


def _taking(init: Callable[..., None], options: Sequence[Option]) -> Callable[..., None]:
    @functools.wraps(init)
    def wrapper(self: Any, **arguments: Any) -> None:
        values = {each.name: arguments.pop(each.name, each.default) for each in options}
        init(self, **arguments)
        for name, value in values.items():
            setattr(self, name, value)

    wrapper.__signature__ = add_parameters(inspect.signature(init), options, keep_variadic=True)  # type: ignore[attr-defined]
    return wrapper
