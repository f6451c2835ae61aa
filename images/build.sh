#!/usr/bin/env bash
# Builds the images: images/build.sh [worker|cpu|mlflow|serving ...], all four by default.
#
#   BASE       python 3.11 image to stand on            python:3.11-slim-bookworm
#   REGISTRY   put before the names                     (none: loraloom/worker)
#   TAG        the images' tag                          loraloom's version
#   CPU_INDEX  a package index with torch's CPU wheels, for the cpu image
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL                  as pip takes them
#
# Without a network: images/wheelhouse.sh first; wheels in images/wheelhouse are then the only source.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' components/__init__.py)
base=${BASE:-python:3.11-slim-bookworm}
tag=${TAG:-$version}
prefix=${REGISTRY:+$REGISTRY/}loraloom

arguments=(--build-arg "BASE=$base" --build-arg "VERSION=$version" --build-arg "GIT_SHA=$(git rev-parse HEAD)")
for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL; do
    [ -z "${!name:-}" ] || arguments+=(--build-arg "$name=${!name}")
done
if compgen -G 'images/wheelhouse/*.whl' >/dev/null; then
    arguments+=(--network none)
fi

build() {  # NAME FOLDER [MORE...]
    local image="$prefix/$1:$tag"
    docker build --quiet --file "images/$2/Dockerfile" --tag "$image" "${arguments[@]}" "${@:3}" . >/dev/null
    docker image inspect --format "$image {{.Size}}" "$image" | awk '{printf "%-40s %6.0f MB\n", $1, $2 / 1e6}'
}

[ $# -gt 0 ] || set -- worker cpu mlflow serving
for name in "$@"; do
    case $name in
        worker) build worker steps --build-arg IMAGE=worker --build-arg GPUS=all ;;
        cpu) build cpu steps --build-arg IMAGE=cpu \
            ${CPU_INDEX:+--build-arg "PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL:-} $CPU_INDEX"} ;;
        mlflow) build mlflow mlflow ;;
        serving) build serving serving --build-arg "PARENT=$prefix/worker:$tag" ;;
        *) echo "no image is called $name" >&2; exit 2 ;;
    esac
done
