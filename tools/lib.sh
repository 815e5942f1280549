# What the scripts in tools/ share. Source it: . "$(dirname "$0")/lib.sh"
#
# Processes are children of the script and are stopped by their own id; files live in one work folder, which goes with
# the script. Every wait has a limit.

CAIRN_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }
warn() { printf '%s\n' "$*" >&2; }
fail() { warn "${0##*tools/}: $*"; exit 1; }

# --- What to undo at the end, newest first -------------------------------------------------------------------------
ON_EXIT=()
at_exit() { ON_EXIT+=("$*"); }
run_at_exit() {
    local status=$? index
    trap '' INT TERM
    for ((index = ${#ON_EXIT[@]} - 1; index >= 0; index--)); do eval "${ON_EXIT[index]}" || true; done
    exit "$status"
}
trap run_at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# --- Files ---------------------------------------------------------------------------------------------------------
# work_folder NAME MIB [PARENT]: sets WORK to a new folder on a real disk with room for MIB, removed at the end.
# Without PARENT: $CAIRN_WORK, else /var/tmp, which unlike /tmp is seldom held in memory.
work_folder() {
    local name=$1 mib=$2 parent=${3:-${CAIRN_WORK:-/var/tmp}} kind free
    [ -d "$parent" ] || fail "$parent is no folder"
    kind=$(stat -f -c %T "$parent")
    case $kind in
        tmpfs | ramfs) fail "$parent is held in memory ($kind): choose a folder on a disk" ;;
    esac
    free=$(df --output=avail -BM "$parent" | tail -1 | tr -dc 0-9)
    [ "$free" -ge "$mib" ] || fail "$parent has $free MiB free; $mib MiB are needed"
    WORK=$(mktemp -d "$parent/cairn-$name.XXXXXXXX")
    at_exit "rm -rf -- $(printf %q "$WORK")"
}

# mib TEXT: whole MiB of a size such as 2GiB, 512MiB or 2G.
mib() {
    [[ $1 =~ ^([1-9][0-9]*)(M|G|T)(iB)?$ ]] || fail "'$1' is no size such as 512MiB or 2GiB"
    case ${BASH_REMATCH[2]} in
        M) echo "${BASH_REMATCH[1]}" ;;
        G) echo $((BASH_REMATCH[1] * 1024)) ;;
        T) echo $((BASH_REMATCH[1] * 1024 * 1024)) ;;
    esac
}

# --- Disk images ---------------------------------------------------------------------------------------------------
# stage_files DIR MIB: makes a folder with files of this machine's /usr, in path order, until they fill MIB.
stage_files() {
    mkdir "$1"
    find /usr/bin /usr/lib /usr/share -xdev -type f -size -64M -printf '%s %p\n' | LC_ALL=C sort -k2 |
        awk -v cap=$(($2 << 20)) '{ sum += int(($1 + 4095) / 4096) * 4096; if (sum <= cap) { sub(/^[0-9]+ /, ""); print } }' |
        cpio -pdm --quiet "$1"
    stamp_files "$1"
}

# stamp_files DIR: gives all in a folder the same time, so that an image of it tells when nothing.
stamp_files() { find "$1" -exec touch -h -d @1700000000 {} +; }

# make_image DIR IMAGE MIB: an ext4 image of a folder. The same folder gives the same layout, so that only changed files' blocks
# differ.
make_image() {
    rm -f "$2"
    truncate -s "${3}M" "$2"
    E2FSPROGS_FAKE_TIME=1700000000 mke2fs -q -t ext4 -b 4096 -O ^has_journal -U 6f1b3a52-0c5e-4a0e-9d54-7f0000000001 \
        -E hash_seed=6f1b3a52-0c5e-4a0e-9d54-7f0000000002,root_owner=0:0,lazy_itable_init=0 -d "$1" "$2"
}

# --- Programs ------------------------------------------------------------------------------------------------------
# need COMMAND…: fails, naming tools/setup, where one is missing.
need() {
    local command
    for command in "$@"; do
        command -v "$command" >/dev/null || fail "'$command' is missing: run tools/setup"
    done
}

# build_cairn [PRODUCT…]: builds for release, cairn and cairnd unless told otherwise; sets BIN. With $CAIRN_BIN set, the
# programs in that folder are used as they are.
build_cairn() {
    local product
    if [ -n "${CAIRN_BIN:-}" ]; then
        BIN=$(cd "$CAIRN_BIN" && pwd)
        return
    fi
    need swift
    [ $# -gt 0 ] || set -- cairn cairnd
    for product in "$@"; do
        (cd "$CAIRN_ROOT" && swift build -c release --product "$product" >&2) || fail "building $product failed"
    done
    BIN=$(cd "$CAIRN_ROOT" && swift build -c release --show-bin-path)
}

# How tests are built: with optimisation, for what runs much, and with assertions. Shared by tools/test and tools/torture.
TEST_BUILD=(-c release -Xswiftc -enable-testing -Xswiftc -assert-config -Xswiftc Debug --scratch-path .build/optimised)

# make_pki DIR [ACCOUNT]: an authority with a server on loopback ("server") and one caller ("client").
make_pki() {
    "$BIN/cairn" pki create-ca "$1" >/dev/null
    "$BIN/cairn" pki create-server "$1" server --dns localhost --ip 127.0.0.1 --ip ::1 >/dev/null
    "$BIN/cairn" pki create-client "$1" client --account "${2:-demo}" >/dev/null
}

# use_credentials PKI NAME ADDRESS: every cairn command from here on talks to ADDRESS as NAME.
use_credentials() {
    export CAIRN_SERVER=$3 CAIRN_CERT=$1/$2.crt CAIRN_KEY=$1/$2.key CAIRN_CA=$1/ca.crt
}

# start_cairnd DATA PKI [OPTION…]: serves DATA on a free port of loopback; sets CAIRND_PID and CAIRND_ADDRESS once the
# server says that it is ready. Its log is DATA.log.
start_cairnd() {
    local data=$1 pki=$2 log=$1.log deadline=$((SECONDS + ${CAIRND_READY_LIMIT:-60}))
    shift 2
    : >"$data.out"
    "$BIN/cairnd" serve --data "$data" --listen 127.0.0.1:0 --cert "$pki/server.crt" --key "$pki/server.key" \
        --ca "$pki/ca.crt" --crl "$pki/crl.pem" "$@" >"$data.out" 2>>"$log" </dev/null &
    CAIRND_PID=$!
    at_exit "stop_process $CAIRND_PID"
    until CAIRND_ADDRESS=$(sed -n 's/^cairnd ready on //p' "$data.out") && [ -n "$CAIRND_ADDRESS" ]; do
        if ! kill -0 "$CAIRND_PID" 2>/dev/null; then
            tail -20 "$log" >&2
            fail "cairnd ended before it was ready"
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            tail -20 "$log" >&2
            fail "cairnd was not ready in time"
        fi
        sleep 0.05
    done
}

# stop_process PID [SECONDS]: asks a child of this script to end, and kills it after a limit (20 s). True when it ended
# by itself. One that ended long ago is left alone: its id may be another's by now.
stop_process() {
    local pid=$1 tries=$((${2:-20} * 20))
    jobs -p | grep -qx "$pid" || return 0
    kill "$pid" 2>/dev/null || true
    while [ "$tries" -gt 0 ] && [ -d "/proc/$pid" ] && ! is_zombie "$pid"; do
        sleep 0.05
        tries=$((tries - 1))
    done
    [ "$tries" -gt 0 ] || kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    [ "$tries" -gt 0 ]
}
is_zombie() { [ "$(sed 's/.*) //; s/ .*//' "/proc/$1/stat" 2>/dev/null)" = Z ]; }

# --- Measuring -----------------------------------------------------------------------------------------------------
# cpu_seconds PID: user and system time that the process has used.
cpu_seconds() {
    awk -v ticks="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%.2f\n", ($12 + $13) / ticks }' "/proc/$1/stat"
}

# anonymous_mib PID: RssAnon now.
anonymous_mib() { awk '/^RssAnon:/ { printf "%.0f\n", $2 / 1024 }' "/proc/$1/status"; }

# sample_memory PID FILE: in the background, keeps the process's peak of RssAnon (MiB) in FILE, sampled 20 times a
# second until the process ends; sets SAMPLER_PID.
sample_memory() {
    (
        trap - EXIT INT TERM
        peak=0
        echo 0 >"$2"
        while now=$(anonymous_mib "$1" 2>/dev/null) && [ -n "$now" ]; do
            if [ "$now" -gt "$peak" ]; then
                peak=$now
                echo "$peak" >"$2"
            fi
            sleep 0.05
        done
    ) &
    SAMPLER_PID=$!
    at_exit "stop_process $SAMPLER_PID 2"
}

# loopback_mib: what has gone through this machine's loopback since it started.
loopback_mib() { awk '$1 == "lo:" { printf "%.0f\n", $2 / 1048576 }' /proc/net/dev; }

# timed COMMAND…: runs it; sets ELAPSED to its seconds, and gives its status.
timed() {
    local start=$EPOCHREALTIME status=0
    "$@" || status=$?
    ELAPSED=$(awk -v from="$start" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.3f", to - from }')
    return "$status"
}

# spread NUMBER…: "median min max".
spread() {
    printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 }
        END { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; printf "%.3f %.3f %.3f\n", m, v[1], v[NR] }'
}
