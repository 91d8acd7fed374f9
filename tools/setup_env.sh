#!/usr/bin/env bash
# Set up the Python environment of this repository in `.venv`.
#
# Usage: setup_env.sh [--lite]
#
# --lite  classification and video only: mmcv-lite, which needs no build,
#         instead of mmcv, and no mmdet
#
# PYTHON names another interpreter than python3.11 or python3, and PINS another
# file of constraints than requirements/pins-py311.txt, which holds for Python
# 3.11 alone. Running the script again does nothing while requirements/ and the
# script are unchanged.

set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
stamp=$venv/.mutualnet_mm

say() { printf '==> %s\n' "$*"; }

die() {
    printf 'setup_env.sh: %s\n' "$*" >&2
    exit 1
}

kind=full
for argument in "$@"; do
    case $argument in
        --lite) kind=lite ;;
        -h | --help)
            sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit
            ;;
        *) die "unknown argument '$argument'; use --lite or nothing" ;;
    esac
done

# The path belongs to the fingerprint because a copied or moved environment
# still points to where it was made.
fingerprint() {
    {
        echo "$1 $root ${PINS:-}"
        cat "$root"/requirements/*.txt "$root/tools/setup_env.sh"
    } | cksum
}

if [ -f "$stamp" ]; then
    found=$(cat "$stamp")
    for good in "$kind" full; do
        if [ "$found" = "$good $(fingerprint "$good")" ]; then
            say "environment is up to date ($good): .venv"
            exit
        fi
    done
elif [ -e "$venv" ]; then
    die "$venv exists but was not made by this script; move it away first"
fi

if [ -n "${PYTHON:-}" ]; then
    python=$PYTHON
elif python3.11 -c '' 2>/dev/null; then
    python=python3.11
else
    python=python3
fi
"$python" -c '' 2>/dev/null ||
    die "no Python found as '$python'; install Python 3.11, or set PYTHON"
# Of an active virtual environment, which may be the one to be replaced, take
# the interpreter behind it.
python=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))')
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
    die "Python $version is too old; install 3.9 or newer, best 3.11"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "Python $version lacks venv; install it (python3-venv on Debian)"
if [ "$kind" = full ]; then
    for compiler in gcc g++; do
        command -v "$compiler" >/dev/null ||
            die "$compiler is missing, which compiles mmcv;" \
                "install it (g++ on Debian), or use --lite"
    done
fi

[ ! -e "$venv" ] ||
    say "requirements changed, or a set-up was interrupted: starting over"
# The stamp stays in place throughout: it says that the folder is ours.
mkdir -p "$venv"
echo unfinished >"$stamp"
find "$venv" -mindepth 1 -maxdepth 1 ! -name "${stamp##*/}" -exec rm -rf {} +
say "creating .venv with Python $version ($kind)"
"$python" -m venv "$venv"

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check "$@"
}
install() { pip install ${quiet:+"$quiet"} "${pins[@]}" "$@"; }
requirements() {
    local name files=()
    for name in "$@"; do
        files+=(-r "$root/requirements/$name.txt")
    done
    install "${files[@]}"
}

# Progress bars and lists of dependencies are for someone who watches.
quiet=
[ -t 1 ] || quiet=-q
if [ -n "${PINS:-}" ]; then
    pins=(-c "$root/$PINS")
elif [ "$version" = 3.11 ]; then
    pins=(-c "$root/requirements/pins-py311.txt")
else
    # An empty array is an unset variable to old releases of bash.
    pins=(--no-input)
fi

# mmcv compiles against the torch that it finds, so torch comes first.
say 'installing torch and torchvision'
install 'torch>=2.1.0' torchvision
say 'installing what builds need: setuptools<81, wheel, ninja, psutil'
requirements build
if [ "$kind" = full ]; then
    say 'installing mmcv==2.1.0, which compiles 77 C++ files:' \
        'about 13 minutes on two cores, unless pip already has the wheel'
    MMCV_WITH_OPS=1 install --no-build-isolation mmcv==2.1.0
    say 'installing mmpretrain, mmdet, mmaction2 and the tests'
    requirements runtime mminstall cls det video quickstart deploy demo analysis tests
else
    say 'installing mmcv-lite==2.1.0, mmpretrain, mmaction2 and the tests'
    # mminstall.txt asks for mmcv, which excludes mmcv-lite.
    install mmcv-lite==2.1.0
    requirements runtime cls video quickstart deploy demo analysis tests
fi
say 'installing mutualnet_mm itself'
install --no-build-isolation --no-deps -e "$root"

say 'checking that everything imports'
(
    # From elsewhere, so that the installed package is what is found.
    cd /
    modules=(mmpretrain.models mmaction.models)
    [ "$kind" = lite ] || modules+=(mmdet.models mmcv.ops)
    "$venv/bin/python" -W ignore - "${modules[@]}" <<'END'
import importlib
import sys

try:
    import mutualnet_mm

    for name in sys.argv[1:]:
        importlib.import_module(name)
except ImportError as error:
    hint = ''
    if 'libGL' in str(error) or 'libgthread' in str(error):
        hint = '; OpenCV needs it (libgl1 and libglib2.0-0 on Debian)'
    sys.exit(f'setup_env.sh: {error}{hint}')
import torch

print(f'mutualnet_mm {mutualnet_mm.__version__}, torch {torch.__version__}')
END
)
echo "$kind $(fingerprint "$kind")" >"$stamp"
say "done: use .venv/bin/python, or 'source .venv/bin/activate'"
