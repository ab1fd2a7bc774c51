"""The programs. gRPC's core is silent under them: it would write of every bad header it meets, to
standard error and in a form of its own, and reads this variable when it is loaded."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
