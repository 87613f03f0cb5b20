"""Python runs this as it starts: for a worker of Ray, a process is forked from the server of `forks` in its place."""

import os
import sys

if os.environ.get("PRERANK_TESTS_FORKS") and any(
    argument.endswith(("/setup_worker.py", "/default_worker.py")) for argument in sys.orig_argv
):
    sys.path.append(os.path.dirname(os.path.dirname(__file__)))
    import forks

    os._exit(forks.Fork(sys.orig_argv[1:], dict(os.environ)).wait() & 255)
