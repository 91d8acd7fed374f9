#!/usr/bin/env bash
# Set up the Python environment of this repository in `.venv`.
#
# Usage: setup_env.sh [--lite] [--stack classic|onedl] [--only cls|det|video]
#
# --lite   classification and video only: mmcv-lite, which needs no build,
#          instead of mmcv, and no mmdet
# --stack  other releases, in `.venv-classic` or `.venv-onedl`: PyTorch 2.1.2 and
#          NumPy 1.26 on Python 3.9 to 3.11 (requirements/pins-classic.txt), or
#          OneDL's packages of OpenMMLab, which have no mmaction2
# --only   one project, in `.venv-cls` (mmpretrain), `.venv-det` (mmdet, and
#          mmpretrain, which has VGG) or `.venv-video` (mmaction2); the first
#          and the last with mmcv-lite
#
# PYTHON names another interpreter than python3.11 or python3, and PINS another
# file of constraints than requirements/pins-py311.txt, which holds for Python
# 3.11 alone. Running the script again does nothing while requirements/ and the
# script are unchanged.

set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
say() { printf '==> %s\n' "$*"; }

die() {
    printf 'setup_env.sh: %s\n' "$*" >&2
    exit 1
}

mmcv=full stack='' only=''
while [ $# -gt 0 ]; do
    case $1 in
        --lite) mmcv=lite ;;
        --stack | --only)
            case $1=${2-} in
                --stack=classic | --stack=onedl) stack=$2 ;;
                --only=cls | --only=video) only=$2 mmcv=lite ;;
                --only=det) only=$2 ;;
                --stack=*) die "--stack is classic or onedl, not '${2-}'" ;;
                *) die "--only is cls, det or video, not '${2-}'" ;;
            esac
            shift
            ;;
        -h | --help)
            sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit
            ;;
        *) die "unknown argument '$1'; see setup_env.sh --help" ;;
    esac
    shift
done
if [ "$only,$mmcv" = det,lite ]; then
    die 'mmdet does not work with mmcv-lite: leave out --lite'
elif [ "$stack,$only" = onedl,video ]; then
    die 'OneDL has no mmaction2: leave out --stack onedl or --only video'
fi
# Each stack and selection has a folder of its own, so that trying one does not
# cost the environment that one works with.
kind=$mmcv${stack:+-$stack}${only:+-$only}
venv=$root/.venv${stack:+-$stack}${only:+-$only}
stamp=$venv/.mutualnet_mm
name=${venv##*/}

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
    for good in "$kind" "${kind/lite/full}"; do
        if [ "$found" = "$good $(fingerprint "$good")" ]; then
            say "environment is up to date ($good): $name"
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
case $stack,$version in
    classic,3.9 | classic,3.10 | classic,3.11) ;;
    classic,*) die "PyTorch 2.1.2 has no build for Python $version; set PYTHON" ;;
    onedl,3.9) die 'OneDL needs Python 3.10 or newer; set PYTHON' ;;
esac
if [ "$mmcv" = full ]; then
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
say "creating $name with Python $version ($kind)"
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
elif [ "$stack" = classic ]; then
    pins=(-c "$root/requirements/pins-classic.txt")
elif [ -n "$stack" ]; then
    pins=(--no-input)
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
# pip keeps wheels by the name of the release, but one of mmcv holds for the torch
# that it was compiled with. OneDL's is compiled only where its build sees a torch.
how=()
if [ -n "$stack" ]; then
    torch=$("$venv/bin/python" -c 'import torch; print(torch.__version__)')
    how=(--cache-dir "$(pip cache dir)/mutualnet_mm-$torch-$mmcv")
fi
case $stack,$mmcv in
    onedl,*) release=onedl-mmcv==2.3.6 ;;
    *,full) release=mmcv==2.1.0 ;;
    *) release=mmcv-lite==2.1.0 ;;
esac
if [ "$mmcv" = full ]; then
    say "installing $release, which compiles 77 C++ files:" \
        'about 13 minutes on two cores, unless pip already has the wheel'
    how+=(--no-build-isolation)
else
    say "installing $release"
fi
MMCV_WITH_OPS=1 install ${how[@]+"${how[@]}"} "$release"
say 'installing the projects and the tests'
# The file of mmcv, mminstall.txt, is left out: mmcv is there, and excludes
# mmcv-lite. torchcam, of analysis.txt, needs PyTorch 2.4.
case $stack,$only,$mmcv in
    onedl,cls,* | onedl,,lite) projects=(onedl-cls) ;;
    onedl,*) projects=(onedl-cls onedl-det) ;;
    *,det,*) projects=(cls det) ;;
    *,?*,*) projects=("$only") ;;
    *,lite) projects=(cls video) ;;
    *) projects=(cls det video) ;;
esac
[ "$stack" = classic ] || projects+=(analysis)
requirements runtime quickstart deploy demo tests "${projects[@]}"
say 'installing mutualnet_mm itself'
install --no-build-isolation --no-deps -e "$root"

say 'checking that everything imports'
(
    # From elsewhere, so that the installed package is what is found.
    cd /
    modules=()
    case $only in cls | det | '') modules+=(mmpretrain.models) ;; esac
    case $only,$stack in video, | , | ,classic) modules+=(mmaction.models) ;; esac
    [ "$mmcv" = lite ] || modules+=(mmdet.models mmcv.ops)
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
say "done: use $name/bin/python, or 'source $name/bin/activate'"
