// @databricks/lakebase and node-postgres: several sessions at once, a suspend between two queries, COPY's errors.
import assert from "node:assert";
import { createLakebasePool, getUsernameWithApiLookup } from "@databricks/lakebase";
import pg from "pg";

const user = await getUsernameWithApiLookup();
assert.equal(user, process.env.DATABRICKS_CLIENT_ID);

const pool = createLakebasePool();
pool.on("error", () => {}); // a suspend cuts idle sessions
const replies = await Promise.all(
  [1, 2, 3].map((n) => pool.query("SELECT session_user AS name, $1::int AS n, pg_sleep(0.1)", [n])),
);
assert.deepEqual(replies.map(({ rows }) => rows[0].n), [1, 2, 3]);
assert.equal(replies[0].rows[0].name, user);

const client = await pool.connect();
await client.query("BEGIN");
await client.query("CREATE TEMP TABLE item (id int) ON COMMIT DROP");
await assert.rejects(client.query("SELECT * FROM nowhere"), { code: "42P01" });
await client.query("ROLLBACK");
client.release();

const refused = new pg.Client({ host: "localhost", database: "databricks_postgres", user, password: "no", ssl: true });
await assert.rejects(refused.connect(), { code: "XX000" });
await pool.end();
