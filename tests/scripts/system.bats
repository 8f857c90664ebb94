# Rules of scripts/lib/system.sh, with requirements that no machine meets.
load lib

_needs() { # COMMAND…
  # shellcheck disable=SC2016 # of the other shell
  bash -c 'set -euo pipefail; . scripts/lib/common.sh; . scripts/lib/system.sh
system_needs="
build | no-such-compiler other-compiler | gcc libc6-dev |
tests | /no/such/*/file                 | some-files    | files
tests | module:no_such_module           | some-module   |
other | no-such-thing                   | other-thing   | thing
build | variable:NAMED no-such-browser  | some-browser  | browser
"
'"$*"
}

_as() { # ID SUDO
  stand_in id <<<"echo $1"
  stand_in sudo <<<"$2"
  stand_in apt-get
}

@test "whoever may not install packages gets one line with all of them" {
  _as 1000 'exit 1'
  fails _needs system_packages build tests
  says "sudo apt-get install --no-install-recommends gcc libc6-dev some-files some-module some-browser"
  not_says other-thing
  not_called apt-get
}

@test "root and whoever needs no password for sudo get them installed at once" {
  _as 0 'exit 1'
  passes _needs system_packages build tests
  called "apt-get * install * gcc libc6-dev some-files some-module some-browser"
  _as 1000 '[ "$1" = -n ] || "$@"'
  passes _needs system_packages other
  called "apt-get * install * other-thing"
}

@test "what is there is not asked for" {
  _as 1000 'exit 1'
  stand_in other-compiler
  NAMED=here passes _needs system_packages build
  not_called sudo
  passes _needs 'is_there /etc/pass* && is_there module:json && is_there no-such-thing bash && ! is_there no-such-thing module:no_such'
}

@test "what homebrew has is named where there is no apt" {
  stand_in id <<<'echo 1000'
  fails _needs 'command() { [ "$2" != apt-get ] && builtin command "$@"; }; system_packages build tests'
  says "brew install files browser"
  says "some-module"
}

@test "the documents name the same packages" {
  . scripts/lib/system.sh
  equals "$(cut -d'|' -f3 <<<"$system_needs" | xargs -n 1)" \
    "$(sed -n '/apt-get install/,/^```/p' docs/development.md | tr -d '\\`' | xargs -n 1 | sed 1,4d)"
}
