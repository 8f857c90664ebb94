# Rules of terraform/export.sh, the daily dump. pg_dump and pg_restore are stand-ins: an archive is complete if it ends
# with "end".
load lib

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

@test "a dump is named after the second and told in one line" {
  _programs 'archive\nend\n'
  passes _export
  local files=("$scratch"/backups/*)
  [[ ${files[*]##*/} =~ ^tickets-[0-9]{8}-[0-9]{6}Z\.dump$ ]]
  equals "archive end" "$(tr '\n' ' ' <"${files[0]}" | sed 's/ $//')"
  equals exported "$(jq -r .message <<<"$output")"
  equals "${files[0]##*/} 12" "$(jq -r '"\(.file) \(.bytes)"' <<<"$output")"
  called 'pg_dump --format=custom '
}

@test "a dump is readable by its owner alone" {
  umask 022
  _programs 'archive\nend\n'
  passes _export
  equals 600 "$(stat -c %a "$scratch"/backups/*)"
}

@test "a torn dump is no backup" {
  _programs 'archi'
  fails _export
  says 'end of file'
  equals "" "$(ls "$scratch/backups")"
}

@test "a dump that fails is no backup" {
  _programs 'archive\nend\n'
  stand_in pg_dump <<<'echo "connection refused" >&2; exit 1'
  fails _export
  says 'connection refused'
  equals "" "$(ls "$scratch/backups")"
}

@test "a copy that differs is removed" {
  _programs 'archive\nend\n'
  stand_in cp <<<'head -c 3 "$1" >"$2"'
  fails _export
  equals "" "$(ls "$scratch/backups")"
}

@test "a full bucket is told" {
  _programs 'archive\nend\n'
  stand_in cp <<<'echo "No space left on device" >&2; exit 1'
  fails _export
  says 'No space left'
  equals "" "$(ls "$scratch/backups")"
}

@test "nothing is left in memory" {
  _programs 'archive\nend\n'
  passes _export
  equals "" "$(find "$scratch" -mindepth 1 -name 'tmp.*')"
}
