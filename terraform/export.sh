#!/usr/bin/env bash
# Dumps the database named by PGHOST, PGDATABASE, PGUSER and PGPASSWORD into BACKUP_DIR. export.tf runs it as a job.
set -euo pipefail
umask 077 # the dump contains people's names and the seeds of codes

name=tickets-$(date -u +%Y%m%d-%H%M%SZ).dump
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pg_dump --format=custom --file="$work/$name"
# pg_restore cannot list an incomplete archive. Only a complete one is copied to the backups.
pg_restore --list "$work/$name" >"$work/list"
if ! cp "$work/$name" "$BACKUP_DIR/$name" || ! cmp "$work/$name" "$BACKUP_DIR/$name"; then
  rm -f "$BACKUP_DIR/$name"
  exit 1
fi

printf '{"severity":"INFO","message":"exported","file":"%s","bytes":%d}\n' "$name" "$(wc -c <"$work/$name")"
