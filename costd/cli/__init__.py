"""The programs, under which gRPC's core is silent.

It would write of every bad header it meets, to standard error and in a form of its own. It reads
this variable when it is loaded.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
