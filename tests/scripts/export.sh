# Rules of terraform/export.sh, the daily dump. pg_dump and pg_restore are stand-ins: an archive is complete if it ends
# with "end".

_programs() { # the output of pg_dump
  stand_in pg_dump <<SH
for argument; do case \$argument in --file=*) printf '$1' >"\${argument#*=}" ;; esac; done
SH
  stand_in pg_restore <<'SH'
[ "$(tail -n 1 "$2")" = end ] || { echo "could not read from input file: end of file" >&2; exit 1; }
SH
  mkdir "$scratch/backups"
}

_export() { BACKUP_DIR=$scratch/backups terraform/export.sh; }

a_dump_is_named_after_the_second_and_told_in_one_line() {
  _programs 'archive\nend\n'
  passes _export
  local files=("$scratch"/backups/*)
  [[ ${files[*]##*/} =~ ^tickets-[0-9]{8}-[0-9]{6}Z\.dump$ ]]
  equals "archive end" "$(tr '\n' ' ' <"${files[0]}" | sed 's/ $//')"
  equals exported "$(jq -r .message <<<"$output")"
  equals "${files[0]##*/} 12" "$(jq -r '"\(.file) \(.bytes)"' <<<"$output")"
  called 'pg_dump --format=custom '
}

a_dump_is_readable_by_its_owner_alone() {
  umask 022
  _programs 'archive\nend\n'
  passes _export
  equals 600 "$(stat -c %a "$scratch"/backups/*)"
}

a_torn_dump_is_no_backup() {
  _programs 'archi'
  fails _export
  says 'end of file'
  equals "" "$(ls "$scratch/backups")"
}

a_dump_that_fails_is_no_backup() {
  _programs 'archive\nend\n'
  stand_in pg_dump <<<'echo "connection refused" >&2; exit 1'
  fails _export
  says 'connection refused'
  equals "" "$(ls "$scratch/backups")"
}

a_copy_that_differs_is_removed() {
  _programs 'archive\nend\n'
  stand_in cp <<<'head -c 3 "$1" >"$2"'
  fails _export
  equals "" "$(ls "$scratch/backups")"
}

a_full_bucket_is_told() {
  _programs 'archive\nend\n'
  stand_in cp <<<'echo "No space left on device" >&2; exit 1'
  fails _export
  says 'No space left'
  equals "" "$(ls "$scratch/backups")"
}

nothing_is_left_in_memory() {
  _programs 'archive\nend\n'
  passes _export
  equals "" "$(find "$scratch" -mindepth 1 -name 'tmp.*')"
}
