"""Where statements end, and where placeholders may stand, without a server."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lakebase.core.sql.split import check_placeholders, read_parameters, split_statements
from airflow_provider_lakebase.exceptions import LakebaseSettingsError

QUOTED = {
    "a literal": "'{}'",
    "an escaped literal": r"E'it\'s {}'",
    "a doubled quote": "'it''s {}'",
    "a dollar quote": "$${}$$",
    "a tagged dollar quote": "$tag$ $$ {} $tag$",
    "a Unicode literal": "U&'{}'",
    "a bit string": "B'{}'",
    "an array": "'{{{}}}'",
    "a quoted identifier": 'AS "{}"',
    "a line comment": "-- {}\n",
    "a comment": "/* {} */",
    "a nested comment": "/* a /* b */ {} */",
}


def split(text: str) -> list[str]:
    return [statement.text for statement in split_statements(text)]


@pytest.mark.parametrize("quoted", QUOTED.values(), ids=QUOTED)
@pytest.mark.parametrize(("placeholder", "parameters"), [("%s", [1]), ("%(x)s", {"x": 1}), ("%b", [1]), ("%t", [1])])
def test_a_placeholder_within_quotes_is_refused(quoted: str, placeholder: str, parameters):
    with pytest.raises(LakebaseSettingsError, match="on line 2 of the statement is inside a") as raised:
        check_placeholders("SELECT 1,\n " + quoted.format(placeholder), parameters)
    assert f"%{placeholder} if the text itself is meant" in str(raised.value)


@pytest.mark.parametrize("quoted", QUOTED.values(), ids=QUOTED)
def test_a_doubled_percent_sign_and_a_placeholder_outside_are_taken(quoted: str):
    check_placeholders(f"SELECT %s, {quoted.format('100%% %%s')}", [1])


@pytest.mark.parametrize("quoted", QUOTED.values(), ids=QUOTED)
def test_without_parameters_a_percent_sign_is_only_one(quoted: str):
    check_placeholders(quoted.format("100% %s"), None)


@pytest.mark.parametrize("text", ["SELECT 7 % 4, %s", "SELECT a LIKE 'x%' AND %s", "SELECT %s -- 100 %"])
def test_a_percent_sign_beside_parameters_is_named(text: str):
    with pytest.raises(LakebaseSettingsError, match="Write %% for a per cent sign"):
        check_placeholders(text, [1])


@pytest.mark.parametrize(
    ("text", "parameters", "words"),
    [
        ("SELECT 1", [1], "0 placeholders, but 1 parameters"),
        ("SELECT %s", [1, 2], "1 placeholders, but 2 parameters"),
        ("SELECT %s, %s", [1], "2 placeholders, but 1 parameters"),
        ("SELECT %(a)s", {"b": 1}, r"%\(a\)s, but there is no parameter of that name"),
        ("SELECT %(a)s", [1], "its parameters are not a mapping"),
        ("SELECT %s", {"a": 1}, "its parameters are a mapping"),
        ("SELECT %s, %(a)s", {"a": 1}, "both %s and"),
    ],
)
def test_placeholders_and_parameters_belong_together(text: str, parameters, words: str):
    with pytest.raises(LakebaseSettingsError, match=words):
        check_placeholders(text, parameters)


def test_a_mapping_may_hold_more_than_a_statement_uses():
    check_placeholders("SELECT 1", {"a": 1})


@pytest.mark.parametrize("given", ["ab", b"ab", {1, 2}, 5, iter([1]), {"a": 1}.keys()])
def test_parameters_are_a_list_or_a_mapping(given):
    with pytest.raises(LakebaseSettingsError, match="Pass a list of values"):
        read_parameters(given)


def test_any_other_collection_of_parameters_is_taken():
    assert read_parameters(range(1, 3)) == [1, 2]
    assert read_parameters((1, 2)) == [1, 2]
    assert read_parameters({"a": 1}) == {"a": 1}
    assert read_parameters([]) is read_parameters({}) is read_parameters(None) is None


def test_sequences_and_mappings_inside_parameters_become_lists_and_dicts():
    given = {"a": range(2), "b": MappingProxyType({"c": range(1, 2)}), "d": (1, 2), "e": "text", "f": b"x"}
    read = read_parameters(given)
    assert read == {**given, "a": [0, 1], "b": {"c": [1]}}


@pytest.mark.parametrize(
    "opening", ["'", "E'", r"E'it\'s ", "$$", "$tag$ $$", '"', "/* /* */", "E'a'\n  '", "E'a' -- b\n'c\\' "]
)
def test_a_placeholder_behind_quotes_that_nothing_closes_is_refused(opening: str):
    with pytest.raises(LakebaseSettingsError, match="is inside a"):
        check_placeholders(f"SELECT {opening}%s", ["; SELECT 7; --"])


@pytest.mark.parametrize(
    "text",
    ["'a'%s", "%s'a'", "'a'\n%s", "%s\n'a'", "'a' -- b\n%s", "t%s", "1%s", "%s1", '"t"%s', '%s"t"', "é%s", "$$a$$%s"],
)
def test_a_placeholder_that_would_become_one_with_its_neighbour_is_refused(text: str):
    with pytest.raises(LakebaseSettingsError, match="directly beside a name or another value"):
        check_placeholders(f"SELECT {text}", ["x"])


@pytest.mark.parametrize("text", ["%s%s", "%s\n%s", "%s /* a */ \n %s"])
def test_two_placeholders_without_anything_between_them_are_refused(text: str):
    with pytest.raises(LakebaseSettingsError, match="directly beside a name or another value"):
        check_placeholders(f"SELECT {text}", ["x", "y"])


@pytest.mark.parametrize(
    "text", ["a=%s", "(%s)", "%s::text", "ARRAY[%s]", "a -%s", "5 %% %s", "'a' || %s", 'x AS "y", %s']
)
def test_a_placeholder_in_place_of_a_value_is_taken(text: str):
    check_placeholders(f"SELECT {text}", [1])


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("SELECT 17 # 5; SELECT 2", ["SELECT 17 # 5", "SELECT 2"]),
        ("UPDATE t SET a = 8 # 1 WHERE id = 1", ["UPDATE t SET a = 8 # 1 WHERE id = 1"]),
        ("SELECT ';'; -- ;\nSELECT $$;$$;", ["SELECT ';'", "-- ;\nSELECT $$;$$"]),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3",
            ["CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END", "SELECT 3"],
        ),
        ("SELECT 1 -- a\r; SELECT 2", ["SELECT 1 -- a", "SELECT 2"]),
        ("SELECT a$$ FROM t; SELECT b$$", ["SELECT a$$ FROM t", "SELECT b$$"]),
        (";; -- nothing\n /* ; */ ;", []),
        ("SELECT E'\\';'; SELECT 'a\\'; SELECT 2", ["SELECT E'\\';'", "SELECT 'a\\'", "SELECT 2"]),
    ],
)
def test_a_statement_ends_where_postgres_ends_it(text: str, statements: list[str]):
    assert split(text) == statements


@given(st.lists(st.sampled_from([each.format("a;b %s") for each in QUOTED.values()]), min_size=1, max_size=6))
def test_quoted_semicolons_end_no_statement(parts: list[str]):
    text = f"SELECT 1 {' '.join(parts)}"
    assert split(f"{text}\n; SELECT 2") == [text.strip(), "SELECT 2"]


@pytest.mark.parametrize("character", [*map(chr, range(1, 256)), "\u0100", "\uffff", "\U0010ffff"])
def test_a_letter_is_what_postgres_takes_for_one(character: str):
    """Only a tag of letters begins a dollar quote, in which a semicolon ends nothing."""
    is_letter = character == "_" or (character.isascii() and character.isalpha()) or ord(character) >= 128
    in_tag = is_letter or (character.isascii() and character.isdigit())
    for tag, quotes in ((character, is_letter), (f"a{character}", in_tag)):
        if character not in "$'\"-/;(":
            assert len(split(f"SELECT ${tag}$;${tag}$")) == (1 if quotes else 2), repr(tag)
    # In a word, a dollar sign begins no quote.
    if is_letter:
        assert len(split(f"SELECT {character}$$;$$")) == 2


def test_a_text_of_any_length_is_split():
    values = ", ".join(f"({n}, {n})" for n in range(30_000))
    assert len(split(f"INSERT INTO t VALUES {values}; SELECT 1")) == 2
