"""Processes as the containers of a pod are: users of their own, a root file system read-only.

A mount namespace stands in for a container's file system, and a directory of root's that everybody
may write to for a pod's emptyDir.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

SIDECAR_UID = 65_532
APP_UID = 1_000
ROOT = Path(__file__).parents[2]

# Python may be installed below a directory that only root may enter, such as root's own home:
# an empty one is mounted over that, and what is needed of it into that.
CONTAINER = """\
set -e
pod=$1 uid=$2 closed=$3 needed=$4; shift 4
mount --make-rprivate /
if [ -n "$closed" ]; then
  mkdir -p "$pod/kept"
  mount --rbind "$needed" "$pod/kept"
  mount -t tmpfs -o mode=755 tmpfs "$closed"
  mkdir -p "$needed"
  mount --move "$pod/kept" "$needed"
fi
mount --bind "$pod" "$pod"
while read -r _ _ _ _ point _; do
  case "$point" in
    "$pod"|/proc*|/sys*|/dev*) ;;
    *) mount -o remount,bind,ro "$point" 2>/dev/null || true ;;  # or it is hidden
  esac
done < /proc/self/mountinfo
cd /
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"
"""


def closed_above(path):
    """The first directory above a path that only its owner may enter; empty if none is."""
    above = reversed(Path(path).parents)
    return next((str(each) for each in above if not each.stat().st_mode & 0o001), "")


def as_container(pod, uid):
    """What to run a program under."""
    closed = closed_above(sys.base_prefix)
    words = [str(pod), str(uid), closed, sys.base_prefix if closed else ""]
    return ("unshare", "--mount", "sh", "-c", CONTAINER, "container", *words)


def lacking(pod):
    """Say what this machine cannot do of it; empty if it can."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv"))):
        return "needs root, and Debian's util-linux, to run as other users"
    if closed_above(ROOT) or closed_above(sys.prefix):
        return f"needs {ROOT} and {sys.prefix} where other users may read them"
    tried = subprocess.run(
        [*as_container(pod, SIDECAR_UID), sys.executable, "-c", "import costd"],
        capture_output=True,
        text=True,
        check=False,
    )
    return tried.stderr and f"mounts are not allowed here: {tried.stderr.strip()}"


def empty_dir(pod, name):
    """Make a directory as the kubelet makes an emptyDir: root's, for everybody, not sticky."""
    folder = pod / name
    folder.mkdir()
    folder.chmod(0o777)
    return folder
