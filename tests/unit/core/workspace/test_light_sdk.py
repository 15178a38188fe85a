"""databricks-sdk without its services: the same modules and classes, whoever imports what first.

Each program runs in a process of its own, since an import cannot be undone.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_provider_lakebase

LIGHT = "import airflow_provider_lakebase.core.workspace.light_sdk as light"
SERVICES = "len([name for name in sys.modules if name.startswith('databricks.sdk.service.')])"
SAME = """
import databricks.sdk.service.postgres, databricks.sdk.core, types
assert type(sdk) is types.ModuleType and sdk is sys.modules['databricks.sdk']
assert 'WorkspaceClient' in vars(sdk)
client = sdk.WorkspaceClient
assert databricks.sdk.service.postgres.PostgresAPI is sdk.PostgresAPI
assert light.ApiClient is databricks.sdk.core.ApiClient is sdk.client.ApiClient
assert light.Config is databricks.sdk.core.Config is sdk.client.Config
assert light.DatabricksError is databricks.sdk.errors.DatabricksError
"""


def run(program: str, path: Path | None = None) -> str:
    environment = {"PYTHONPATH": str(path)} if path else {}
    program = f"import sys\n{program}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_few_modules_are_loaded():
    assert int(run(f"{LIGHT}\nprint({SERVICES})")) == 0


@pytest.mark.parametrize(
    "use",
    [
        "from databricks.sdk import WorkspaceClient; import databricks.sdk as sdk",
        "import databricks.sdk as sdk; sdk.AccountClient",
        "import databricks; sdk = databricks.sdk; assert 'WorkspaceClient' in dir(sdk)",
        "from databricks.sdk import *; WorkspaceClient; import databricks.sdk as sdk",
        "import databricks.sdk as sdk; assert not hasattr(sdk, 'nothing_of_this_name')",
        "import databricks.sdk as sdk, inspect; assert dict(inspect.getmembers(sdk))['WorkspaceClient']",
        "import databricks.sdk as sdk, importlib; importlib.reload(sdk); assert not hasattr(sdk, 'nothing')",
        "import databricks.sdk as sdk, importlib; sdk.WorkspaceClient; assert importlib.reload(sdk) is sdk",
        "import pickle; client = pickle.loads(b'cdatabricks.sdk\\nWorkspaceClient\\n.'); import databricks.sdk as sdk",
    ],
)
def test_what_is_used_later_is_there_and_the_same(use: str):
    run(f"{LIGHT}\n{use}\n{SAME}")


def test_an_sdk_that_was_imported_before_stays_as_it_is():
    run(f"import databricks.sdk as sdk\nbefore = dict(vars(sdk))\n{LIGHT}\nassert vars(sdk) == before\n{SAME}")


def test_importing_a_module_does_not_run_the_package():
    output = run(f"{LIGHT}\nfrom databricks.sdk import oauth, azure\nimport databricks.sdk.oidc\nprint({SERVICES})")
    assert int(output) <= 2


def test_what_only_other_identities_need_is_there_once_it_is_used():
    run(f"""{LIGHT}
assert not [name for name in sys.modules if name.startswith('cryptography.x509')]
import google.auth, google.auth.impersonated_credentials as impersonated, types
from google.oauth2 import service_account
from databricks.sdk import azure
import databricks.sdk.credentials_provider as provider
assert provider.service_account is service_account and provider.impersonated_credentials is impersonated
assert service_account.Credentials.__module__ == 'google.oauth2.service_account'
assert issubclass(impersonated.Credentials, google.auth.credentials.Credentials)
assert not hasattr(impersonated, 'nothing_of_this_name')
assert azure.add_workspace_id_header is provider.azure.add_workspace_id_header
assert {{type(each) for each in (service_account, impersonated, azure)}} == {{types.ModuleType}}
""")


def test_what_looks_at_the_package_finds_it():
    run(f"""{LIGHT}
import importlib.resources, importlib.util, inspect, pickle, pkgutil
import databricks, databricks.sdk as sdk
import databricks.sdk.version
from databricks.sdk.service.postgres import Endpoint, EndpointType, PostgresAPI
assert pickle.loads(pickle.dumps(PostgresAPI)) is PostgresAPI
assert pickle.loads(pickle.dumps(EndpointType.ENDPOINT_TYPE_READ_WRITE)) in EndpointType
endpoint = Endpoint(name='e')
assert pickle.loads(pickle.dumps(endpoint)) == endpoint
assert inspect.getmodule(light.Config).__name__ == 'databricks.sdk.config'
assert 'class Config' in inspect.getsource(light.Config)
assert 'WorkspaceClient' in inspect.getsource(sdk)
assert inspect.getsourcefile(sdk) == sdk.__file__
assert {{'core', 'service', 'errors'}} <= {{module.name for module in pkgutil.iter_modules(sdk.__path__)}}
assert importlib.resources.files('databricks.sdk').joinpath('version.py').is_file()
assert b'version' in pkgutil.get_data('databricks.sdk', 'version.py')
assert importlib.util.find_spec('databricks.sdk') is sdk.__spec__
assert sdk.__spec__.loader is sdk.__loader__ and 'light' not in type(sdk.__loader__).__module__
assert sdk.version.__version__
assert databricks.sdk is sdk and not [finder for finder in sys.meta_path if 'StandIn' in type(finder).__name__]
print(type(sdk).__name__)
""")


def test_two_threads_may_import_it_and_use_it_at_once():
    run(f"""
import threading
start, found = threading.Barrier(12), []
def one(number):
    start.wait()
    if number % 3 == 0:
        {LIGHT}
        found.append(light.ApiClient)
    elif number % 3 == 1:
        from databricks.sdk import WorkspaceClient, client
        found.append(client.ApiClient)
    else:
        from databricks.sdk.core import ApiClient
        found.append(ApiClient)
threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join(50)
assert len(found) == 12 and len(set(found)) == 1, found
{LIGHT}
import databricks.sdk as sdk
{SAME}
""")


def test_threads_that_use_it_at_once_run_the_package_once():
    run(f"""{LIGHT}
import threading, databricks.sdk as sdk
start, found = threading.Barrier(8), []
def use():
    start.wait()
    found.append(sdk.WorkspaceClient)
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join(50)
assert len(found) == 8 and len(set(found)) == 1
{SAME}
""")


def test_a_process_that_is_forked_while_another_thread_runs_the_package_can_run_it():
    run(f"""{LIGHT}
import os, threading, time
import databricks.sdk as sdk
held, go = threading.Event(), threading.Event()
def hold():
    with light._EXECUTION.lock:
        light._EXECUTION.running.add('databricks.sdk')
        held.set(); go.wait()
        light._EXECUTION.running.clear()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    sdk.WorkspaceClient
    os._exit(0)
deadline = time.monotonic() + 50
while (status := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
    time.sleep(0.05)
go.set()
sdk.WorkspaceClient
assert status == (child, 0), status
{SAME}
""")


def write_sdk(directory: Path, init: str, **modules: str) -> None:
    """Write a package ``databricks.sdk`` in which each module has the classes that the provider imports."""
    root = directory / "databricks" / "sdk"
    root.mkdir(parents=True)
    (root.parent / "__init__.py").write_text("")
    (root / "__init__.py").write_text(init)
    plain = {
        "config": "class Config: pass\nclass ConfigAttribute: pass",
        "core": "class ApiClient: pass\nclass DatabricksError(Exception): pass",
        "errors": "class Unauthenticated(Exception): pass",
        "oauth": "class OidcEndpoints: pass",
    }
    for name, text in {**plain, **modules}.items():
        (root / f"{name}.py").write_text(text + "\n")


def test_modules_that_need_what_the_package_defines_are_imported_as_usual(tmp_path: Path):
    core = "from databricks.sdk import Base\nclass ApiClient(Base): pass\nclass DatabricksError(Exception): pass"
    write_sdk(tmp_path, "class Base: pass\nfrom databricks.sdk.core import ApiClient\n", core=core)
    run(
        f"{LIGHT}\nimport databricks.sdk as sdk\nassert sdk.__file__.startswith({str(tmp_path)!r})\n"
        "assert light.ApiClient is sdk.ApiClient and issubclass(light.ApiClient, sdk.Base)",
        tmp_path,
    )


def test_a_package_that_fails_says_so_whenever_it_is_used(tmp_path: Path):
    write_sdk(tmp_path, "raise ImportError('a part is not installed')")
    run(
        f"""{LIGHT}
import databricks.sdk as sdk
for _ in range(2):
    try:
        sdk.WorkspaceClient
    except ImportError as error:
        assert 'a part is not installed' in str(error)
    else:
        raise SystemExit('no error')""",
        tmp_path,
    )


def test_a_name_that_the_package_itself_lacks_is_missing_while_it_runs(tmp_path: Path):
    write_sdk(tmp_path, "import databricks.sdk as me\nassert not hasattr(me, 'late')\nlate = 1")
    run(f"{LIGHT}\nfrom databricks.sdk import late\nassert late == 1", tmp_path)


def test_an_sdk_without_what_is_needed_is_reported_by_its_name(tmp_path: Path):
    write_sdk(tmp_path, "", core="")
    program = f"try:\n    {LIGHT}\nexcept ImportError as error:\n    print(error)"
    assert "databricks.sdk.core" in run(program, tmp_path)


def test_no_submodule_hides_what_the_package_defines_under_its_name():
    run("""
import pkgutil, types, databricks.sdk as sdk
for module in pkgutil.iter_modules(sdk.__path__):
    if module.name in vars(sdk):
        assert vars(sdk)[module.name] is sys.modules[f'databricks.sdk.{module.name}'], module.name
""")


def test_the_provider_imports_the_sdk_here_or_inside_functions():
    found = []
    for path in Path(airflow_provider_lakebase.__file__).parent.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] == "databricks" for name in names):
                found.append(path.name)
    assert set(found) == {"light_sdk.py"}
