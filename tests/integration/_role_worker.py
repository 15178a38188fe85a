"""A process that has imported the provider and forks a worker for each bootstrap that standard input asks for.

One command a line, as JSON: the arguments of ``RoleRequest``. The answer is the worker's pid. ``{}`` waits for the
worker and answers how it ended.
"""

from __future__ import annotations

import json
import os
import sys

from airflow_provider_lakebase.core.grants import bootstrap as _  # noqa: F401 - imported here, so that no worker has to
from airflow_provider_lakebase.core.grants.request import RoleRequest
from airflow_provider_lakebase.hooks.lakebase import LakebaseHook

worker = 0
for line in sys.stdin:
    command = json.loads(line)
    if command:
        worker = os.fork()
        if worker == 0:
            LakebaseHook("lakebase_admin").bootstrap_role(RoleRequest(**command), prune=True)
            os._exit(0)
        print(worker, flush=True)
    else:
        print(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]), flush=True)
