"""CSV files of mixed dialects as people have them, with the names and values that they hold."""

from __future__ import annotations

import csv
import io
import random
from dataclasses import dataclass
from datetime import date, timedelta

NAMES = ["id", "Name", "Straße", "Ort", "Preis", "date", "amount", "comment", "e-mail", "Größe", "qty", "café"]
WORDS = ["Müller", "Söhne", "Zürich", "São Paulo", "garçon", "Ärzte", "alpha", "beta", "New York", "fée", "naïve", "x"]
RARE = {"cp1252": ["5 €", "“quoted”", "don’t", "a – b"], "latin-1": ["½", "µm", "© 2026"]}
PREAMBLES = ["Report of 1 November 2026", "Exported by SAP", "", "Kunde: Müller", "Page 1 of 1", "All amounts in EUR"]


@dataclass(frozen=True)
class CorpusFile:
    """A file, its dialect, and what it holds.

    :param data: its bytes
    :param dialect: how it was written
    :param names: its column names, or None without a header
    :param rows: its values
    """

    data: bytes
    dialect: dict[str, object]
    names: list[str] | None
    rows: list[list[str]]


def make_file(order: random.Random) -> CorpusFile:
    """Return a file of a random dialect.

    :param order: decides
    """
    delimiter = order.choice(",,,;;;\t\t|")
    encoding = order.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
    dialect: dict[str, object] = {
        "delimiter": delimiter,
        "quote": order.choice(["'", None] + ['"'] * 8),
        "escape": order.choice(["\\"] + [None] * 7),
        "encoding": encoding,
        "line_end": order.choice(["\n", "\n", "\r\n"]),
        "preamble": order.choice([0, 0, 0, 1, 2, 3]),
        "comment": order.choice(["#"] + [None] * 5),
        "header": order.random() < 0.85,
        "decimal": order.choice(",.") if delimiter != "," else ".",
        "always_quotes": order.random() < 0.3,
    }
    columns = [order.choice(_KINDS) for _ in range(order.randint(2, 8))]
    count = order.choice([1, 2, 3, 5, 10, 30, 100, 300])
    rows = [[kind(order, dialect, number) for kind in columns] for number in range(count)]
    names = order.sample(NAMES, len(columns)) if dialect["header"] else None
    text = _write(order, dialect, [*([names] if names else []), *rows])
    data = text.encode(encoding, "replace")
    return CorpusFile(data, dialect, names, rows)


def _identity(order: random.Random, dialect: dict[str, object], number: int) -> str:
    return str(number + 1)


def _number(order: random.Random, dialect: dict[str, object], number: int) -> str:
    return f"{order.uniform(-1000, 1000):.2f}".replace(".", str(dialect["decimal"]))


def _day(order: random.Random, dialect: dict[str, object], number: int) -> str:
    return str(date(2026, 1, 1) + timedelta(order.randrange(300)))


def _moment(order: random.Random, dialect: dict[str, object], number: int) -> str:
    return f"{_day(order, dialect, number)} {order.randrange(24):02}:{order.randrange(60):02}:00"


def _word(order: random.Random, dialect: dict[str, object], number: int) -> str:
    if order.random() < 0.1:
        return ""
    return order.choice([*WORDS, *RARE.get(str(dialect["encoding"]), [])])


def _sentence(order: random.Random, dialect: dict[str, object], number: int) -> str:
    words = [_word(order, dialect, number) for _ in range(order.randint(1, 6))]
    text = order.choice([" ", ", ", "; ", " | ", " - "]).join(words)
    quote = dialect["quote"]
    if quote is None:
        return text.replace(str(dialect["delimiter"]), "/")
    if order.random() < 0.2:
        text = f"{text} {quote}{order.choice(WORDS)}{quote}"
    return text + "\nsecond line" if order.random() < 0.05 else text


def _mail(order: random.Random, dialect: dict[str, object], number: int) -> str:
    return f"{order.choice(['anna', 'bert', 'chris'])}{number}@example.com"


_KINDS = [_identity, _number, _day, _moment, _word, _word, _sentence, _mail]


def _write(order: random.Random, dialect: dict[str, object], rows: list[list[str]]) -> str:
    end = str(dialect["line_end"])
    quote, escape = dialect["quote"], dialect["escape"] if dialect["quote"] else None
    if quote is None:
        quoting = csv.QUOTE_NONE
    else:
        quoting = csv.QUOTE_ALL if dialect["always_quotes"] else csv.QUOTE_MINIMAL
    lines = [order.choice(PREAMBLES) for _ in range(int(str(dialect["preamble"])))]
    for number, row in enumerate(rows):
        if dialect["comment"] and (number == 0 or order.random() < 0.05):
            lines.append(f"{dialect['comment']} {order.choice(WORDS)} {order.choice(WORDS)}")
        buffer = io.StringIO(newline="")
        writer = csv.writer(
            buffer,
            delimiter=str(dialect["delimiter"]),
            quotechar=str(quote or '"'),
            quoting=quoting,
            escapechar=str(escape) if escape else None,
            doublequote=not escape,
            lineterminator=end,
        )
        if quote is None:
            buffer.write(str(dialect["delimiter"]).join(row))
        else:
            writer.writerow([value.replace("\n", end) for value in row])
        lines.append(buffer.getvalue().removesuffix(end))
    return end.join(lines) + (end if order.random() < 0.9 else "")
