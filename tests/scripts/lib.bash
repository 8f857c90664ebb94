# The vocabulary of the tests of scripts. Each test runs in the root of the repository, with stand-ins first on the PATH and an
# environment that holds nothing of the caller's but that. HOME and TMPDIR are a directory of its own, which a test calls $scratch.
# shellcheck shell=bash

bats_require_minimum_version 1.5.0

setup() {
  local name
  for name in $(compgen -e); do
    case $name in BATS_* | PATH) ;; *) unset "$name" ;; esac
  done
  cd "$BATS_TEST_DIRNAME/../.." || return
  scratch=$BATS_TEST_TMPDIR # not exported, so that a script under test cannot use it by mistake
  export HOME=$scratch TMPDIR=$scratch LC_ALL=C PATH=$scratch/bin:$PATH
  mkdir "$scratch/bin"
  touch "$scratch/calls"
  # Programs that reach outside or take long: calling one without a stand-in fails with a message.
  for name in cargo curl docker gcloud gh terraform; do
    stand_in "$name" <<<"echo 'there is no stand-in for this program: $name' >&2; exit 1"
  done
  set -uo pipefail
}

# stand_in NAME <<'SH' … SH
# Puts a program NAME first on the PATH: it logs its arguments and then runs the lines given, with `set -euo pipefail`
# and with $scratch for files. Without lines it succeeds and prints nothing.
stand_in() {
  {
    printf '#!/usr/bin/env bash\nset -euo pipefail\nscratch=%q\n' "$scratch"
    # One line per call, whatever the arguments contain.
    printf 'call="%s $*"\nprintf "%%s\\n" "${call//$'"'\\\\n'"'/ }" >>"$scratch/calls"\n' "$1"
    cat
  } >"$scratch/bin/$1"
  chmod +x "$scratch/bin/$1"
}

# committed: turns the working directory into a repository with everything in one commit.
committed() {
  export GIT_AUTHOR_NAME=Test GIT_AUTHOR_EMAIL=test@example.org GIT_COMMITTER_NAME=Test GIT_COMMITTER_EMAIL=test@example.org
  git init --quiet
  git add .
  git commit --quiet -m first
}

# passes COMMAND…: it must succeed. Its output, from both streams, is then in $output, for `says`.
passes() {
  local status=0
  output=$("$@" 2>&1) || status=$?
  printf '%s\n' "$output"
  [ $status = 0 ] || _wrong "ended with $status, not with success: $*"
}

# fails COMMAND…: it must fail, but not because it does not exist.
fails() {
  local status=0
  output=$("$@" 2>&1) || status=$?
  printf '%s\n' "$output"
  case $status in
    0) _wrong "succeeded: $*" ;;
    126 | 127) _wrong "a program is missing: $*" ;;
  esac
}

# says TEXT, not_says TEXT: whether the last passes or fails printed it.
says() { [[ $output == *"$1"* ]] || _wrong "did not say: $1"; }
not_says() { [[ $output != *"$1"* ]] || _wrong "said: $1"; }

# equals EXPECTED ACTUAL
equals() { [ "$1" = "$2" ] || _wrong "expected '$1', got '$2'"; }

# called PATTERN, not_called PATTERN: whether a stand-in had such a call. PATTERN is part of the line "NAME ARGUMENTS";
# * stands for anything: called 'gcloud run jobs execute * --wait'.
called() { [ "$(calls "$1")" != 0 ] || _wrong_calls "was not called: $1"; }
not_called() { [ "$(calls "$1")" = 0 ] || _wrong_calls "was called: $1"; }

# called_in_order PATTERN…: each in a later call than the one before.
called_in_order() {
  local call
  while read -r call; do
    # shellcheck disable=SC2053 # a pattern
    if [ $# != 0 ] && [[ $call == *$1* ]]; then shift; fi
  done <"$scratch/calls"
  [ $# = 0 ] || _wrong_calls "was not called, or not in this order: $1"
}

# calls PATTERN: prints the number of such calls.
calls() {
  local call count=0
  while read -r call; do
    # shellcheck disable=SC2053 # a pattern
    if [[ $call == *$1* ]]; then count=$((count + 1)); fi
  done <"$scratch/calls"
  echo $count
}

_wrong() {
  echo "$*" >&2
  return 1
}

_wrong_calls() {
  sed 's/^/call: /' "$scratch/calls" >&2
  _wrong "$@"
}
