#!/bin/sh
# Fills /opt/venv inside a build stage: the requirements given, or those of pyproject.toml, at constraints.txt's versions.
# Where images/wheelhouse holds wheels, they are the only source and no index is asked.
set -eu

if [ $# -eq 0 ]; then
    set -- $(python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"])')
fi
if ls wheelhouse/*.whl >/dev/null 2>&1; then
    set -- --no-index --find-links wheelhouse "$@"
fi
python3 -m venv /opt/venv
/opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt "$@"
packages=$(echo /opt/venv/lib/python3*/site-packages)
rm -rf "$packages/torch/test" "$packages/pandas/tests"  # 130 MB that nothing imports
