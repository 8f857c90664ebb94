# Finds and installs the system packages that the scripts need. Read after common.sh.
# shellcheck shell=bash

# Purpose | any of these shows that it is installed: a program, a file, a Python module, a variable that names one | Debian's
# packages | Homebrew's packages.
system_needs='
build   | git                                                        | git                              | git
build   | cc                                                         | gcc libc6-dev                    |
build   | python3                                                    | python3                          | python
build   | module:ensurepip                                           | python3-venv                     |
build   | curl                                                       | curl                             |
build   | jq                                                         | jq                               | jq
scripts | bats                                                       | bats                             | bats-core
tests   | oathtool                                                   | oathtool                         | oath-toolkit
tests   | openssl                                                    | openssl                          | openssl@3
tests   | variable:PROGRAMS /usr/lib/postgresql/*/bin/initdb initdb docker | postgresql                 | postgresql@17
tests   | pg_dump                                                    | postgresql-client                | libpq
tests   | pgbouncer /usr/sbin/pgbouncer                              | pgbouncer                        | pgbouncer
faults  | strace                                                     | strace                           |
faults  | prlimit                                                    | util-linux                       |
faults  | /usr/lib/*/faketime/libfaketime.so.1                       | libfaketime                      |
node    | npm                                                        | nodejs npm                       | node
pages   | variable:CHROMIUM chromium-headless-shell chromium chromium-browser google-chrome | chromium-headless-shell fonts-dejavu-core | chromium
engines | variable:FIREFOX firefox-esr firefox                       | firefox-esr                      | firefox
engines | WebKitWebDriver                                            | webkit2gtk-driver                |
engines | Xvfb                                                       | xvfb                             |
engines | /usr/lib/*/gstreamer-1.0/libgstapp.so                      | gstreamer1.0-plugins-base        |
engines | /usr/lib/*/gstreamer-1.0/libgstvideo4linux2.so             | gstreamer1.0-plugins-good        |
'

# Succeeds if one of the things is installed.
is_there() { # THING…
  local thing
  for thing; do
    case $thing in
      variable:*) thing=${thing#*:}; [ -n "${!thing-}" ] ;;
      module:*) python3 -c "import ${thing#*:}" 2>/dev/null ;;
      /*) compgen -G "$thing" >/dev/null ;;
      *) command -v "$thing" >/dev/null ;;
    esac && return
  done
  return 1
}

# Checks everything first; then installs everything missing at once, or prints one command that does.
system_packages() { # WHAT-FOR…
  local purpose things debian homebrew missing=() formulae=()
  while IFS='|' read -r purpose things debian homebrew; do
    [[ " $* " == *" ${purpose// /} "* ]] || continue
    read -ra things <<<"$things"
    if ! is_there "${things[@]}"; then
      read -ra debian <<<"$debian"
      read -ra homebrew <<<"$homebrew"
      missing+=("${debian[@]}") formulae+=(${homebrew[@]+"${homebrew[@]}"})
    fi
  done <<<"$system_needs"
  [ ${#missing[@]} != 0 ] || return 0
  # Ubuntu's names.
  if grep -qs '^ID=ubuntu' /etc/os-release; then
    missing=("${missing[@]/#firefox-esr/firefox}")
    missing=("${missing[@]/#chromium-headless-shell/chromium-browser}")
  fi
  if command -v apt-get >/dev/null; then
    if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then
      echo "scripts/${0##*/}: installing ${missing[*]}" >&2
      apt_install "${missing[@]}" && return
    fi
    die "these packages are missing. Install them and run this again:
  sudo apt-get install --no-install-recommends ${missing[*]}"
  fi
  die "these packages are missing (Debian's names): ${missing[*]}${formulae:+
  brew install ${formulae[*]}}"
}
