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

# The engines of other makers: Firefox, and WebKit as GTK's browsers have it, which needs a screen. Ubuntu's package `firefox`
# installs a snap, for which a tree may have no snapd: whoever has none names a Firefox in FIREFOX.
other_browsers() {
  local name
  for name in firefox-esr firefox; do
    [ -n "${FIREFOX-}" ] || FIREFOX=$(command -v $name) || :
  done
  if [ -z "$FIREFOX" ]; then
    apt_install firefox-esr || apt_install firefox || die "Firefox is missing: install it, or name another in FIREFOX"
    FIREFOX=$(command -v firefox-esr || command -v firefox)
  fi
  "$FIREFOX" --version >/dev/null || die "$FIREFOX does not start: install another Firefox, and name it in FIREFOX"
  export FIREFOX
  if ! command -v WebKitWebDriver >/dev/null || ! command -v Xvfb >/dev/null; then
    apt_install webkit2gtk-driver xvfb gstreamer1.0-plugins-base gstreamer1.0-plugins-good ||
      die "WebKitWebDriver or Xvfb is missing (Debian: webkit2gtk-driver, xvfb)"
  fi
}
