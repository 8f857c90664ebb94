# Rules of scripts/restore-rehearsal. PostgreSQL is the machine's own; the program is a stand-in whose answers the rule
# chooses.
load lib
load cloud

# A bucket, and an image with a program that finds each backup good, or fails if the rule breaks `verify`.
_bucket() { # FILE…
  _cloud prd register-ticket-api-prd-00001-abc
  rm "$scratch/bin/psql"
  chmod 711 "$BATS_RUN_TMPDIR" "$scratch" # PostgreSQL runs as another user
  printf 'gs://a-project-ticket-backups-prd/%s\n' "$@" >"$scratch/bucket"
  stand_in docker <<'SH'
case "$1" in
  create) echo a-container ;;
  cp)
    {
      printf '#!/usr/bin/env bash\nset -euo pipefail\nscratch=%q\n' "$scratch"
      cat <<'PROGRAM'
echo "program $*" >>"$scratch/calls"
[ "$(cat "$3")" = "a dump" ] # it was fetched
psql -XAqt "$DATABASE_URL" -c 'select 1' >/dev/null # the server is there
printf 'events          1\ntickets         %s\nsecret mark     %s\n' \
  "$(cat "$scratch/tickets" 2>/dev/null || echo 10)" "$(cat "$scratch/mark" 2>/dev/null || echo 0123456789abcdef)"
! grep -qx verify "$scratch/breaks"
PROGRAM
    } >"$3"
    chmod +x "$3"
    ;;
esac
SH
  _health '{"status": "ok", "database": "ok", "secret_mark": "0123456789abcdef"}'
}

# What /health?full=1 of the service answers.
_health() { # JSON
  echo "$1" >"$scratch/health"
  stand_in curl <<<'cat "$scratch/health"'
}

_today() { date --utc +tickets-%Y%m%d-%H%M%SZ.dump; }

_nothing_stays() { equals "" "$(compgen -G "$scratch/tmp.*" || :)"; }

@test "the newest backup is restored" {
  local newest
  newest=$(_today)
  _bucket tickets-20260101-000000Z.dump "$newest" tickets-20250101-000000Z.dump notes.txt
  passes scripts/restore-rehearsal prd
  called "gcloud storage cp gs://a-project-ticket-backups-prd/$newest"
  called "program backup verify */$newest"
  says 'can be restored'
  _nothing_stays
}

# By digest, as Cloud Run names it: only those who may deploy decide which program reads people's names.
@test "the program is that of the image that serves" {
  _bucket "$(_today)"
  passes scripts/restore-rehearsal prd
  called "docker create docker.io/someone/register-ticket-api@sha256:image-of-register-ticket-api-prd-00001-abc"
}

@test "where nothing serves no program is guessed" {
  _bucket "$(_today)"
  : >"$scratch/serving"
  fails scripts/restore-rehearsal prd
  says 'nothing serves in prd: name an image in IMAGE'
  not_called 'docker create'
}

@test "a backup that the service does not accept is none" {
  _bucket "$(_today)"
  _breaks verify
  fails scripts/restore-rehearsal prd
  says 'cannot be restored'
  not_says 'can be restored'
  _nothing_stays
}

@test "an old newest backup is a failure" {
  _bucket "$(date --utc --date='3 days ago' +tickets-%Y%m%d-%H%M%SZ.dump)"
  fails scripts/restore-rehearsal prd
  says 'does the daily export fail?'
  not_called 'gcloud storage cp'
  BACKUP_MAX_AGE_HOURS=100 passes scripts/restore-rehearsal prd
}

@test "no backup is a failure" {
  _bucket notes.txt
  fails scripts/restore-rehearsal prd
  says 'holds no export'
}

@test "a bucket that cannot be read is a failure" {
  _bucket "$(_today)"
  rm "$scratch/bucket"
  fails scripts/restore-rehearsal prd
  not_called 'docker create'
}

# The script's account may not read the secret, so the service names a mark of it.
@test "a backup that needs another secret than the one in use is none" {
  _bucket "$(_today)"
  passes scripts/restore-rehearsal prd
  called 'curl * https://now.example/health?full=1'
  says 'the TICKET_SECRET of prd fits'
  echo fedcba9876543210 >"$scratch/mark"
  fails scripts/restore-rehearsal prd
  says 'its secret mark is fedcba9876543210, but https://now.example/health?full=1 says 0123456789abcdef'
  says 'take a new export'
  echo none >"$scratch/mark"
  fails scripts/restore-rehearsal prd
  passes scripts/restore-rehearsal prd "gs://a-project-ticket-backups-prd/$(_today)" # an old one may need an older secret
}

@test "a service that names no mark is said not to be compared" {
  _bucket "$(_today)"
  _health '{"status": "failed", "database": "failed", "secret": "unchecked", "secret_mark": null}'
  passes scripts/restore-rehearsal prd
  says 'TICKET_SECRET was not compared'
  not_says 'the TICKET_SECRET of prd fits'
  says 'can be restored'
}

@test "a service that does not answer is a failure, and the export is judged all the same" {
  _bucket "$(_today)"
  stand_in curl <<<'exit 28'
  fails scripts/restore-rehearsal prd
  says 'https://now.example does not answer'
  says 'can be restored'
}

@test "a service with an empty database does not use what was exported" {
  _bucket "$(_today)"
  _health '{"status": "ok", "database": "ok", "secret": "ok", "secret_mark": null}'
  fails scripts/restore-rehearsal prd
  says 'https://now.example/health?full=1 says none'
}

@test "an answer that is not JSON is named" {
  _bucket "$(_today)"
  _health '<html>403 Forbidden</html>'
  fails scripts/restore-rehearsal prd
  says 'https://now.example/health?full=1 does not answer in JSON'
}

# An export of another, or of a new database, would pass for years.
@test "an empty newest backup is a failure" {
  _bucket "$(_today)"
  echo 0 >"$scratch/tickets"
  fails scripts/restore-rehearsal prd
  says 'contains no ticket'
  not_says 'can be restored'
  passes scripts/restore-rehearsal prd "gs://a-project-ticket-backups-prd/$(_today)" # as at a teardown
}

@test "a named backup is taken whatever its age" {
  _bucket notes.txt
  passes scripts/restore-rehearsal prd gs://elsewhere/tickets-20200101-000000Z.dump
  called 'gcloud storage cp gs://elsewhere/tickets-20200101-000000Z.dump'
  not_called 'gcloud storage ls'
}

@test "an environment is needed" {
  fails scripts/restore-rehearsal
  fails scripts/restore-rehearsal other
  fails scripts/restore-rehearsal prd /etc/passwd
}
