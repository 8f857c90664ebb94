# What the tests of the pages need: Node, the packages of tests/pages, a browser. Read after common.sh.
# shellcheck shell=bash

. scripts/lib/system.sh

# By version and hash, and no package runs anything when it is installed (tests/pages/.npmrc).
page_packages() {
  local installed=tests/pages/node_modules/installed.json
  system_packages node
  # The copy is written last: it says what is installed.
  if cmp -s tests/pages/package-lock.json $installed; then return; fi
  npm --prefix tests/pages ci --loglevel=error
  cp tests/pages/package-lock.json $installed
}

browser() {
  local name
  system_packages pages
  for name in chromium chromium-browser google-chrome; do
    [ -n "${CHROMIUM-}" ] || CHROMIUM=$(command -v $name) || :
  done
  export CHROMIUM
}

# The engines of other makers: Firefox, and WebKit as GTK's browsers have it, which needs a screen. Ubuntu's package `firefox`
# installs a snap, for which a tree may have no snapd: whoever has none names a Firefox in FIREFOX.
other_browsers() {
  local name
  system_packages engines
  for name in firefox-esr firefox; do
    [ -n "${FIREFOX-}" ] || FIREFOX=$(command -v $name) || :
  done
  "$FIREFOX" --version >/dev/null || die "$FIREFOX does not start: install another Firefox, and name it in FIREFOX"
  export FIREFOX
}
