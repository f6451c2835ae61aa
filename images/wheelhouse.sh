#!/usr/bin/env bash
# Fills images/wheelhouse on a machine that reaches a package index, for builds on one that does not.
# PYTHON has to be of the base image's version (3.11): wheels are made for one version.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t requirements < <(${PYTHON:-python3} -c '
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")')
${PYTHON:-python3} -m pip wheel --quiet -w images/wheelhouse -c constraints.txt "${requirements[@]}" "psycopg[binary]"
du -sh images/wheelhouse
