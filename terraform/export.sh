#!/usr/bin/env bash
# Dumps the database into BACKUP_DIR. PGHOST, PGDATABASE, PGUSER and PGPASSWORD say which. export.tf runs it, as a job.
set -euo pipefail
umask 077 # names of people, and what makes codes

name=tickets-$(date -u +%Y%m%d-%H%M%SZ).dump
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pg_dump --format=custom --file="$work/$name"
# Torn archives are not listed. Only a whole one gets to where backups are looked for.
pg_restore --list "$work/$name" >"$work/list"
if ! cp "$work/$name" "$BACKUP_DIR/$name" || ! cmp "$work/$name" "$BACKUP_DIR/$name"; then
  rm -f "$BACKUP_DIR/$name"
  exit 1
fi

printf '{"severity":"INFO","message":"exported","file":"%s","bytes":%d}\n' "$name" "$(wc -c <"$work/$name")"
