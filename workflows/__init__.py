"""One verb a file: `python -m workflows.NAME --help`."""

import sys

if sys.argv[:1] == ["-m"]:  # what Python puts there while it looks for the module to run
    from prerank.core.process import begin

    begin()
