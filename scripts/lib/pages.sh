# What the tests of the pages need: Node, the packages of tests/pages, a browser. Read after common.sh.
# shellcheck shell=bash

# By version and hash, and no package runs anything when it is installed (tests/pages/.npmrc).
page_packages() {
  local installed=tests/pages/node_modules/installed.json
  if ! command -v npm >/dev/null; then apt_install nodejs npm || die "Node 18 or newer with npm is missing"; fi
  # The copy is written last: it says what is installed.
  if cmp -s tests/pages/package-lock.json $installed; then return; fi
  npm --prefix tests/pages ci --loglevel=error
  cp tests/pages/package-lock.json $installed
}

browser() {
  local name
  for name in chromium chromium-browser google-chrome; do
    [ -n "${CHROMIUM-}" ] || CHROMIUM=$(command -v $name) || :
  done
  if [ -z "$CHROMIUM" ]; then
    apt_install chromium fonts-dejavu-core || die "Chromium is missing: install it, or name another in CHROMIUM"
    CHROMIUM=$(command -v chromium)
  fi
  export CHROMIUM
}
