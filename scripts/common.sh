# shellcheck shell=bash
# Read by scripts/test and what belongs to it.

die() { # STATUS MESSAGE
  printf '%s: %s\n' "$0" "$2" >&2
  exit "$1"
}

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
  $sudo apt-get -qq update && $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}
