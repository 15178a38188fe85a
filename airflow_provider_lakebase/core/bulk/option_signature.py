"""Give functions that take options as keyword arguments the signature and the documentation of those options."""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from airflow_provider_lakebase.core.bulk.options import FileOptions, Option, list_options

_Function = TypeVar("_Function", bound=Callable[..., Any])
_PLACE = re.compile(r"^( *):param options:.*(?:\n(?! *:| *$).*)*", re.MULTILINE)
_WIDTH = 118


def takes_options(options: type[FileOptions]) -> Callable[[_Function], _Function]:
    """Show the options that a function takes as ``**options`` in its signature and in its docstring.

    Another option raises TypeError.

    :param options: the dataclass of the options, whose documentation replaces ``:param options:``
    """

    def decorate(function: _Function) -> _Function:
        known = list_options(options)
        signature = add_parameters(inspect.signature(function), known, keep_variadic=False)

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__name__}() {error}") from None
            return function(*args, **kwargs)

        checked.__signature__ = signature  # type: ignore[attr-defined]
        checked.__doc__ = add_documentation(function.__doc__, [(each.name, each.description) for each in known])
        return cast(_Function, checked)

    return decorate


def add_parameters(
    signature: inspect.Signature, options: Iterable[Option], *, keep_variadic: bool
) -> inspect.Signature:
    """Return a signature with options as keyword-only parameters.

    :param signature: of a function that takes further keyword arguments
    :param options: the options
    :param keep_variadic: whether it still takes others
    """
    known = list(signature.parameters.values())
    added = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.annotation)
        for each in options
    ]
    variadic = [each for each in known if each.kind is each.VAR_KEYWORD]
    named = [each for each in known if each.kind is not each.VAR_KEYWORD]
    return signature.replace(parameters=[*named, *added, *(variadic if keep_variadic else ())])


def add_documentation(docstring: str | None, options: Iterable[tuple[str, str]]) -> str | None:
    """Return a docstring in which a ``:param:`` for each option replaces ``:param options:``.

    :param docstring: of a function or class
    :param options: name and description of each option
    """

    def render(found: re.Match[str]) -> str:
        indent = found[1]
        return "\n".join(
            textwrap.fill(
                f":param {name}: {description}",
                _WIDTH,
                initial_indent=indent,
                subsequent_indent=f"{indent}    ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            for name, description in options
        )

    return docstring and _PLACE.sub(render, docstring, count=1)
