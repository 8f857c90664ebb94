# What the scripts share. They read it at their start, from the root of the repository.
# shellcheck shell=bash

die() { # MESSAGE
  printf 'scripts/%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

need() { # VARIABLE…
  local name
  for name; do
    [ -n "${!name-}" ] || die "$name is missing in the environment; --help explains"
  done
}

crate_version() { sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml; }

step() { # HEADING COMMAND…
  local heading=$1 start=$SECONDS
  shift
  printf '\n== %s\n' "$heading"
  "$@"
  printf '== %s: ok, %d s\n' "$heading" $((SECONDS - start))
}

apt_install() { # PACKAGE…
  local sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  command -v apt-get >/dev/null || return 1
  $sudo apt-get -qq update &&
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

# What the tests of faults watch and trouble the service with, on Linux alone: its calls, and its clock.
faults_programs() {
  [ "$(uname)" = Linux ] || return 0
  command -v strace >/dev/null || apt_install strace || die "strace is missing: install the package strace"
  command -v prlimit >/dev/null || apt_install util-linux || die "prlimit is missing: install the package util-linux"
  compgen -G "/usr/lib/*/faketime/libfaketime.so.1" >/dev/null || apt_install libfaketime ||
    die "libfaketime is missing: install the package libfaketime"
}
