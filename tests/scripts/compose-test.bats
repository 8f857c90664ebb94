# Rules of scripts/compose-test, with stand-ins for Docker and for the tests themselves.
load lib

_project() {
  mkdir -p "$scratch/project/scripts/lib" "$scratch/project/sql/postgres"
  cp -r sql/postgres/testdata "$scratch/project/sql/postgres"
  cp scripts/compose-test "$scratch/project/scripts"
  cp scripts/lib/common.sh "$scratch/project/scripts/lib"
  cd "$scratch/project"
  printf '#!/usr/bin/env bash\n%s\n' "$1" >scripts/test
  chmod +x scripts/test
  stand_in docker <<'SH'
[ -e "$scratch/fails_to_start" ] && [[ $* == *" up "* ]] && exit 1
case $* in
  *" config "*) echo '{"services":{"db":{"environment":{"POSTGRES_PASSWORD":"a-password","POSTGRES_DB":"tickets"}}}}' ;;
  *" port db 5432") echo 127.0.0.1:40001 ;;
  *" port service 8080") echo 127.0.0.1:40002 ;;
esac
SH
}

@test "the remote tests get the addresses of the containers" {
  _project 'echo "$* at $BASE_URL and $DATABASE_URL with a key of ${#ORGANIZER_KEY}"'
  passes scripts/compose-test
  says "--remote at http://127.0.0.1:40002 and postgres://postgres:a-password@127.0.0.1:40001/tickets with a key of 64"
  called_in_order " up --build --wait" " exec -T db sh -c psql " " down --volumes"
  not_called " logs "
}

@test "a project of its own is removed" {
  _project true
  passes scripts/compose-test
  equals "$(calls docker)" "$(calls 'docker compose --project-name register-ticket-api-test ')"
}

@test "tests that fail show the logs and leave nothing" {
  _project 'exit 3'
  fails scripts/compose-test
  called_in_order " logs " " down --volumes"
}

@test "containers that do not start show the logs and leave nothing" {
  _project 'echo not reached'
  touch "$scratch/fails_to_start"
  fails scripts/compose-test
  not_says "not reached"
  called_in_order " logs " " down --volumes"
}

@test "an option starts nothing" {
  _project true
  fails scripts/compose-test --keep
  not_called docker
}
