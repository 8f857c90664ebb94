# Functions shared by the scripts. They source it from the root of the repository.
# shellcheck shell=bash

die() { # MESSAGE
  printf 'scripts/%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

need() { # VARIABLE…
  local name
  for name; do
    [ -n "${!name-}" ] || die "$name is missing in the environment; see --help"
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

# Makes a virtual environment with the packages of a file, by version and hash.
python_packages() { # DIRECTORY REQUIREMENTS
  if [ ! -x "$1/bin/pip" ]; then
    python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv || die "Python 3.11 or newer with its venv module is missing"
    python3 -m venv "$1" || die "python3 could not create the virtual environment $1"
  fi
  # Written last: this copy records what is installed.
  if ! cmp -s "$2" "$1/requirements.txt"; then
    "$1/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$2" || return 1
    cp "$2" "$1/requirements.txt"
  fi
}

# Waits until a service listens on 127.0.0.1, and prints the address.
listening() { # PROCESS LOG
  local deadline=$((SECONDS + 30)) address
  until address=$(sed -n 's/.*\(127\.0\.0\.1:[1-9][0-9]*\).*listening.*/\1/p' "$2") && [ -n "$address" ]; do
    if [ $SECONDS -ge $deadline ] || ! kill -0 "$1"; then die "the service did not start: $(cat "$2")"; fi
    sleep 0.1
  done
  echo "$address"
}

# Runs the binary that cargo built, on a free port, until the calling shell, which should be a subshell, ends. Sets SERVICE_URL. Removes
# the directory DATA at the end.
serve_built() { # DATA DATABASE_URL
  local data=$1 service binary=${CARGO_TARGET_DIR:-target}/debug/register-ticket-api
  local settings=(${LLVM_PROFILE_FILE:+"LLVM_PROFILE_FILE=$LLVM_PROFILE_FILE"} DATABASE_URL="$2")
  touch "$data/log"
  env -i "${settings[@]}" "$binary" migrate >/dev/null
  env -i "${settings[@]}" HOST=127.0.0.1 PORT=0 ORGANIZER_KEY="$ORGANIZER_KEY" LOG_FORMAT=text \
    "$binary" serve >"$data/log" 2>&1 &
  service=$!
  # shellcheck disable=SC2064 # the values of now
  trap "kill $service; wait $service || :; rm -rf '$data'" EXIT
  SERVICE_URL=http://$(listening $service "$data/log")
  export SERVICE_URL
}
