# Provides what the page tests need: Node, the packages of tests/pages, browsers. Read after common.sh.
# shellcheck shell=bash

. scripts/lib/system.sh

# Installs packages by version and hash; no package runs scripts during installation (tests/pages/.npmrc).
page_packages() {
  local installed=tests/pages/node_modules/installed.json
  system_packages node
  # Written last: this copy records what is installed.
  if cmp -s tests/pages/package-lock.json $installed; then return; fi
  npm --prefix tests/pages ci --loglevel=error
  cp tests/pages/package-lock.json $installed
}

# Finds Chromium: the headless shell if there is one, because it does the same with less work.
browser() {
  local name
  system_packages pages
  for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    [ -n "${CHROMIUM-}" ] || CHROMIUM=$(command -v $name) || :
  done
  export CHROMIUM
}

# Finds the other browser engines: Firefox, and WebKitGTK, which needs a display. Ubuntu's package `firefox` installs a snap; without
# snapd, name another Firefox in FIREFOX.
other_browsers() {
  local name
  system_packages engines
  for name in firefox-esr firefox; do
    [ -n "${FIREFOX-}" ] || FIREFOX=$(command -v $name) || :
  done
  "$FIREFOX" --version >/dev/null || die "$FIREFOX does not start: install another Firefox and name it in FIREFOX"
  export FIREFOX
}
