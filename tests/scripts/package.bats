# Rules of scripts/package, with an existing program and a stand-in for cargo, which would generate man pages and
# completions.
load lib

_project() {
  mkdir -p "$scratch/project/scripts/lib" "$scratch/project/docs"
  cp scripts/package "$scratch/project/scripts"
  cp scripts/lib/common.sh "$scratch/project/scripts/lib"
  cp -r packaging compose compose.yaml .env.example README.md CHANGELOG.md LICENSE-* Cargo.toml "$scratch/project"
  cp docs/{card,card.es,runbook,operation}.md "$scratch/project/docs"
  cd "$scratch/project"
  committed
  # shellcheck disable=SC2016 # of the stand-in
  stand_in cargo <<'SH'
mkdir -p "${@: -1}"
cd "${@: -1}"
for file in register-ticket-api.1 register-ticket-api-keys.1 register-ticket-api.bash _register-ticket-api register-ticket-api.fish; do
  echo "$file" >$file
done
SH
  stand_in rustc <<<'echo "host: x86_64-unknown-linux-gnu"'
  stand_in uname <<<'echo x86_64'
  printf '#!/bin/sh\necho program\n' >program
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
}

@test "the archive holds the program and what a system wants beside it" {
  _project
  passes scripts/package --binary program
  equals program "$(tar -xOzf target/package/register-ticket-api-x86_64-unknown-linux-gnu.tar.gz register-ticket-api/register-ticket-api | sh)"
  passes tar -tzf target/package/register-ticket-api-x86_64-unknown-linux-gnu.tar.gz
  local file
  for file in man/register-ticket-api-keys.1 completions/_register-ticket-api completions/register-ticket-api.bash \
    completions/register-ticket-api.fish register-ticket-api.service README.md LICENSE-MIT LICENSE-APACHE; do
    says "register-ticket-api/$file"
  done
}

@test "the same commit and program make the same packages" {
  _project
  passes scripts/package --binary program
  sha256sum target/package/*.* >first
  rm -r target
  passes scripts/package --binary program
  passes sha256sum --check first
}

@test "the debian package has each file in its place and belongs to root" {
  _project
  passes scripts/package --binary program
  passes dpkg-deb --contents target/package/register-ticket-api-amd64.deb
  local line
  for line in "-rwxr-xr-x root/root * ./usr/bin/register-ticket-api" "-rwxr-xr-x root/root * ./usr/sbin/register-ticket-api-admin" \
    "-rw-r----- root/root * ./etc/register-ticket-api/environment" "-rw-r--r-- root/root * ./usr/lib/systemd/system/register-ticket-api.service" \
    "-rw-r--r-- root/root * ./usr/share/man/man1/register-ticket-api-keys.1.gz" "* ./usr/share/bash-completion/completions/register-ticket-api"; do
    # shellcheck disable=SC2053 # a pattern
    [[ $output == *$line* ]] || _wrong "has no $line"
  done
  passes dpkg-deb --info target/package/register-ticket-api-amd64.deb
  says "Version: $version"
  says "Architecture: amd64"
  equals /etc/register-ticket-api/environment "$(dpkg-deb --info target/package/register-ticket-api-amd64.deb conffiles)"
}

@test "each script of the package knows all units that are started" {
  local unit script
  for unit in packaging/*.service packaging/*.timer; do
    grep -q '^WantedBy=' "$unit" || continue
    for script in postinst prerm postrm; do grep -qF "${unit##*/}" packaging/$script || _wrong "$script does not know $unit"; done
  done
}

@test "the files for compose pull the image and build nothing" {
  _project
  passes scripts/package --compose ghcr.io/somebody/tickets:1.2.3
  tar -xzf target/package/register-ticket-api-compose.tar.gz
  passes grep -x 'IMAGE=ghcr.io/somebody/tickets:1.2.3' register-ticket-api-compose/.env.example
  fails grep 'build:' register-ticket-api-compose/compose.yaml
  passes test -f register-ticket-api-compose/compose/Caddyfile
}

@test "the notes are what the changelog says of the version and nothing else" {
  _project
  printf '%s\n' '## [Unreleased]' new "## [$version] - 2026-01-01" '' '### Added' '- this' '## [0.0.1]' old >CHANGELOG.md
  equals $'### Added\n- this' "$(scripts/package --notes)"
  printf '%s\n' '## [Unreleased]' new >CHANGELOG.md
  fails scripts/package --notes
  says "no section with text for $version"
}

# Like the service: with its settings, whatever they contain, as its user, in its directory.
@test "a command of the administrator runs as the service does" {
  mkdir -p "$scratch/data"
  # shellcheck disable=SC2016 # literally
  printf '# HOST=of a remark\nMAIL_FROM=Tickets <t@example.org>\n\nSMTP_URL=smtp://$(id)`id`\nTICKET_SECRET=a=b "c"' >"$scratch/environment"
  stand_in id <<<'echo 0'
  stand_in setpriv <<<'printf "%s|" "$PWD" "$HOME" "$MAIL_FROM" "$SMTP_URL" "$TICKET_SECRET" "${HOST-none}"'
  sed "s|/etc/register-ticket-api/environment|$scratch/environment|; s|/var/lib/register-ticket-api|$scratch/data|" \
    packaging/register-ticket-api-admin >"$scratch/admin"
  # shellcheck disable=SC2016 # literally
  equals "$scratch/data|$scratch/data|Tickets <t@example.org>|smtp://\$(id)\`id\`|a=b \"c\"|none|" "$(sh "$scratch/admin" keys list)"
  called "setpriv --reuid=register-ticket-api --regid=register-ticket-api --init-groups --no-new-privs register-ticket-api keys list"
}

@test "a setting that systemd would read otherwise is refused" {
  local line
  stand_in id <<<'echo 0'
  stand_in setpriv
  for line in 'TICKET_SECRET="in quotes"' "BACKUP_DIR='in quotes'" 'HOST=with a blank ' "MAIL_FROM=continued\\"; do
    echo "$line" >"$scratch/environment"
    sed "s|</etc/register-ticket-api/environment|<$scratch/environment|" packaging/register-ticket-api-admin >"$scratch/admin"
    fails sh "$scratch/admin" check
    says "write ${line%%=*} without quotes"
  done
  not_called setpriv
}

@test "whoever is not root gets told so" {
  stand_in id <<<'echo 1000'
  stand_in setpriv
  fails sh packaging/register-ticket-api-admin check
  says "try it with sudo"
  not_called setpriv
}
