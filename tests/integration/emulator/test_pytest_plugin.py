"""The pytest plugin, in projects of its own: each test writes files and runs pytest on them in another process."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

PROJECT = Path(__file__).parents[2] / "project"
FIXTURES = """
    import os

    import pytest

    @pytest.fixture(scope="session")
    def lakebase_emulator_options(lakebase_emulator_options):
        return lakebase_emulator_options | {"wake_seconds": 0.1}

    def test_the_service_principal_has_its_role_and_may_create_schemas(lakebase):
        from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

        LakebaseHook().run("CREATE SCHEMA shop; CREATE TABLE shop.prices (price int)")
        role = LakebaseHook("lakebase_admin").get_records("SELECT tableowner FROM pg_tables WHERE tablename = 'prices'")
        assert role == [(lakebase.service_principal.client_id,)]

    def test_a_test_may_break_everything(lakebase):
        lakebase.disable()
        lakebase.faults.refuse_logins("not today")
        lakebase.max_sessions = 0
        lakebase.wake_seconds = 60

    def test_the_next_test_finds_it_whole(lakebase):
        from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

        assert (lakebase.state, lakebase.disabled, lakebase.logins, lakebase.requests) == ("ACTIVE", False, [], [])
        assert (lakebase.max_sessions, lakebase.wake_seconds) == (None, 0.1)
        assert LakebaseHook().get_records("SELECT 1") == [(1,)]

    @pytest.mark.lakebase(asleep=True, max_sessions=3)
    class TestMarked:
        def test_by_its_class(self, lakebase):
            assert (lakebase.state, lakebase.max_sessions) == ("IDLE", 3)

        @pytest.mark.lakebase(asleep=False)
        def test_and_by_itself(self, lakebase):
            assert (lakebase.state, lakebase.max_sessions) == ("ACTIVE", 3)

        def test_without_a_fixture(self):
            assert "AIRFLOW_CONN_LAKEBASE_DEFAULT" in os.environ

    def test_airflow_reads_the_connection_from_json(lakebase, lakebase_connection):
        from airflow.providers.common.compat.sdk import Connection

        assert os.environ["AIRFLOW_CONN_SHOP"] == lakebase_connection
        assert Connection.from_json(lakebase_connection).login == lakebase.service_principal.client_id

    def test_a_proxy_is_not_asked(lakebase):
        assert os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost"
"""


@pytest.fixture(autouse=True)
def _no_plugin_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what the outer pytest tells its children."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "example.org")


def test_start_up_imports_nothing_heavy(pytester: pytest.Pytester):
    pytester.makepyfile("""
        import sys

        def test_start_up():
            assert "airflow_provider_lakebase.emulator.pytest_plugin" in sys.modules
            heavy = {"airflow", "cryptography", "databricks", "pandas", "psycopg", "pyarrow", "sqlalchemy"}
            assert heavy & set(sys.modules) == set()
    """)
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)


def test_each_test_finds_the_emulator_as_it_asks_for_it(pytester: pytest.Pytester):
    pytester.makeini("[pytest]\nlakebase_conn_ids = shop warehouse\n")
    pytester.makepyfile(FIXTURES)
    # Airflow 3.1 warns of itself when it reads a connection, and takes a warning that is an error for a missing one.
    airflows = [f"ignore:{text}" for text in ("The ``noload`` loader strategy", "The `airflow.operators.branch")]
    warnings = [part for rule in ("error", *airflows) for part in ("-W", rule)]
    result = pytester.runpytest_subprocess("--strict-markers", *warnings)
    result.assert_outcomes(passed=8)
    result.stdout.fnmatch_lines(["lakebase: emulator with PostgreSQL 18"])


def test_a_branch_is_the_test_s_own_and_gone_afterwards(pytester: pytest.Pytester):
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(scope="session")
        def lakebase_emulator(lakebase_emulator):
            from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

            LakebaseHook().run("CREATE SCHEMA shop; CREATE TABLE shop.prices AS SELECT 1 AS price")
            return lakebase_emulator
    """)
    pytester.makepyfile("""
        import json
        import os

        import pytest
        from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

        branches = []

        @pytest.mark.parametrize("n", range(2))
        def test_rows_are_seen_by_no_other_test(lakebase_branch, lakebase_connection, n):
            endpoint = json.loads(lakebase_connection)["extra"]["endpoint"]
            assert endpoint == f"{lakebase_branch}/endpoints/primary"
            assert json.loads(os.environ["AIRFLOW_CONN_LAKEBASE_ADMIN"])["extra"]["endpoint"] == endpoint
            branches.append(lakebase_branch)
            LakebaseHook().run("INSERT INTO shop.prices VALUES (2)")
            assert LakebaseHook().get_records("SELECT price FROM shop.prices ORDER BY 1") == [(1,), (2,)]

        @pytest.mark.lakebase(asleep=True)
        def test_the_marker_means_the_branch(lakebase, lakebase_branch):
            branches.append(lakebase_branch)
            assert lakebase.state == "IDLE"
            assert lakebase.endpoint_state("projects/demo/branches/production/endpoints/primary") == "ACTIVE"

        def test_it_may_be_branched_and_operations_may_fail(lakebase, lakebase_branch):
            branches.extend([lakebase_branch, lakebase.create_branch(source=lakebase_branch)])
            lakebase.faults.fail_operations(times=9)

        def test_it_may_be_deleted(lakebase, lakebase_branch):
            lakebase.delete_branch(lakebase_branch)

        def test_afterwards(lakebase):
            assert len(set(branches)) == 5
            assert LakebaseHook().get_records("SELECT price FROM shop.prices") == [(1,)]
            for branch in branches:
                with pytest.raises(ValueError, match="no endpoint"):
                    lakebase.endpoint_state(f"{branch}/endpoints/primary")
    """)
    pytester.runpytest_subprocess("--durations=0").assert_outcomes(passed=6)


@pytest.mark.long
def test_a_project_tests_its_dag_in_parallel_after_three_lines_of_setup(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
):
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        monkeypatch.delenv(name)
    shutil.copytree(PROJECT, pytester.path, dirs_exist_ok=True)
    assert len((pytester.path / "pyproject.toml").read_text().splitlines()) == 3
    result = pytester.runpytest_subprocess("-n", "2", "--dist=loadfile")
    result.assert_outcomes(passed=4)
    assert list(pytester.path.glob("*airflow*")) == []


def test_each_worker_of_xdist_has_its_own(pytester: pytest.Pytester):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("n", range(2))
        def test_port(lakebase, n):
            assert lakebase.pg_version == 16
            print(f"port={lakebase.port}.")
    """)
    result = pytester.runpytest_subprocess("-n", "2", "-rP", "--dist=each", "--lakebase-pg-version=16")
    result.assert_outcomes(passed=4)
    assert len(set(re.findall(r"port=(\d+)\.", str(result.stdout)))) == 2


def test_a_marker_is_obeyed_or_refused(pytester: pytest.Pytester):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.lakebase(sleep=True)
        def test_unknown():
            pass

        @pytest.mark.lakebase("asleep")
        def test_by_position():
            pass
    """)
    result = pytester.runpytest_subprocess("-n", "1")
    result.assert_outcomes(errors=2)
    known = "the marker lakebase takes asleep, wake_seconds, * by name, not"
    result.stdout.fnmatch_lines_random([f"{known} sleep", f"{known} 'asleep'"])


@pytest.mark.parametrize(
    ("setting", "plugin", "said"),
    [
        ("lakebase_wake_seconds = soon", "lakebase", "lakebase_wake_seconds must be a number, not 'soon'"),
        (
            "lakebase_dags_folder = nowhere",
            "lakebase",
            "lakebase_dags_folder must be one folder that exists, not *nowhere",
        ),
        (
            "lakebase_dags_folder = .",
            "early",
            "lakebase_dags_folder has no effect: a plugin has already imported Airflow",
        ),
    ],
)
def test_a_setting_that_cannot_be_obeyed_is_refused(pytester: pytest.Pytester, setting: str, plugin: str, said: str):
    pytester.makeini(f"[pytest]\n{setting}\n")
    pytester.makepyfile(early="import sys\n\nsys.modules['airflow'] = sys\n")
    result = pytester.runpytest_subprocess("-p", plugin)
    result.stderr.fnmatch_lines([f"ERROR: {said}"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_where_it_cannot_run_tests_are_skipped_and_the_summary_says_how_many_and_why(pytester: pytest.Pytester):
    pytester.makeconftest("import sys\n\nsys.modules['cryptography'] = None\n")
    pytester.makepyfile("""
        import pytest

        def test_of_lakebase(lakebase):
            raise AssertionError

        @pytest.mark.lakebase
        def test_marked():
            raise AssertionError

        def test_without():
            pytest.skip("for another reason")
    """)
    for workers in ([], ["-n", "2"]):
        result = pytester.runpytest_subprocess(*workers)
        result.assert_outcomes(skipped=3)
        remedy = "The emulator needs cryptography: pip install 'airflow-provider-lakebase[[]emulator]'"
        result.stdout.fnmatch_lines([f"lakebase: {remedy}", "*= lakebase =*", f"2 tests were skipped. {remedy}"])
