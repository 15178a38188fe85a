"""asyncpg, psycopg2 and pg8000: a verified certificate, cancels in each one's own way, COPY."""

import asyncio
import os
import ssl
import threading

import asyncpg
import pg8000.native
import psycopg2
from databricks.sdk import WorkspaceClient

CA = os.environ["PGSSLROOTCERT"]
workspace = WorkspaceClient()
place = {"host": "localhost", "port": int(os.environ["PGPORT"]), "user": workspace.config.client_id}
context = ssl.create_default_context(cafile=CA)
# PostgreSQL wants it of clients that start with TLS.
context.set_alpn_protocols(["postgresql"])


def password() -> str:
    return workspace.postgres.generate_database_credential(os.environ["LAKEBASE_ENDPOINT"]).token


async def by_asyncpg() -> None:
    for direct_tls in (False, True):
        connection = await asyncpg.connect(
            **place, password=password, database="databricks_postgres", ssl=context, direct_tls=direct_tls
        )
        await connection.execute("CREATE TEMP TABLE item (id int, name text)")
        await connection.copy_records_to_table("item", records=[(n, f"name {n}") for n in range(10_000)])
        assert await connection.fetchval("SELECT count(*) FROM item WHERE id < $1", 5000) == 5000
        try:
            await asyncio.wait_for(connection.execute("SELECT pg_sleep(20)"), 0.2)
        except TimeoutError:
            # It cancels by a connection of its own, and the session goes on.
            assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


def by_psycopg2() -> None:
    connection = psycopg2.connect(
        **place, password=password(), dbname="databricks_postgres", sslmode="verify-full", sslrootcert=CA
    )
    with connection, connection.cursor() as cursor:
        threading.Timer(0.2, connection.cancel).start()
        try:
            cursor.execute("SELECT pg_sleep(20)")
        except psycopg2.errors.QueryCanceled:
            return
    raise AssertionError("was not cancelled")


def by_pg8000() -> None:
    connection = pg8000.native.Connection(
        **place, password=password(), database="databricks_postgres", ssl_context=context
    )
    assert connection.run("SELECT :n::int", n=1) == [[1]]
    connection.close()
    try:
        pg8000.native.Connection(**place, password="no", database="databricks_postgres", ssl_context=context)
    except pg8000.exceptions.DatabaseError as error:
        assert error.args[0]["C"] == "XX000", error


asyncio.run(by_asyncpg())
by_psycopg2()
by_pg8000()
