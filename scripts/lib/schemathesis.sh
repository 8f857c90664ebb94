# Tests the service against src/openapi.json: Schemathesis sends valid and invalid requests, and checks every answer. Read after
# common.sh.
# shellcheck shell=bash

schemathesis=target/schemathesis

schemathesis_package() { python_packages $schemathesis tests/schemathesis/requirements.txt; }

organizer_asks() { # PATH [JSON]
  curl -sS --fail-with-body "$SERVICE_URL/api/$1" -H "Authorization: Bearer $ORGANIZER_KEY" ${2:+-H 'Content-Type: application/json' -d "$2"}
}

# Creates what the requests of schemathesis.toml name: an event with registered tickets, gate keys, a ticket's link.
schemathesis_data() { # DIRECTORY
  local name seat ticket
  organizer_asks events '{"slug":"gala","name":"Gala","reentry":"after_exit","walk_ups":true}' >/dev/null
  organizer_asks users '{"username":"ana","full_name":"Ana"}' >/dev/null
  for seat in {1..8}; do
    organizer_asks events/gala/tickets "{\"seat\":\"$seat\",\"gate\":\"North\"}" >/dev/null
    ticket=$(organizer_asks users/ana/tickets "{\"seat\":\"$seat\",\"gate\":\"North\",\"event\":\"gala\"}" | jq .ticket_id)
    echo "$ticket" >>"$1/tickets"
    organizer_asks "tickets/${ticket//\"/}/link" | jq '.ticket_url | sub(".*/"; "")' >>"$1/tokens"
  done
  for name in one two three; do
    organizer_asks keys "{\"name\":\"$name\",\"role\":\"gate\",\"event\":\"gala\",\"offline\":true}" | jq .key_id >>"$1/keys"
  done
}

# Runs Schemathesis with one key. Set SCHEMATHESIS_SEED, for example to $RANDOM, to generate other requests.
schemathesis_with() { # DIRECTORY KEY EXAMPLES
  SCHEMATHESIS_KEY=$2 $schemathesis/bin/schemathesis --config-file "$1/schemathesis.toml" run src/openapi.json --url "$SERVICE_URL" \
    --seed "${SCHEMATHESIS_SEED:-1}" --max-examples "$3" --continue-on-failure --no-color --warnings off
}

# Tests the binary that cargo built, on its own database: as an organizer, then as a gate, which may do less.
schemathesis_on() ( # DATABASE_URL
  export ORGANIZER_KEY=organizer-key-of-the-schemathesis-1
  data=$(mktemp -d)
  serve_built "$data" "${1:-sqlite:$data/tickets.db}"
  cp tests/schemathesis/schemathesis.toml "$data"
  schemathesis_data "$data"
  schemathesis_with "$data" "$ORGANIZER_KEY" 20
  key=$(organizer_asks keys '{"name":"gate","role":"gate","offline":true}' | jq -r .key)
  schemathesis_with "$data" "$key" 5
)

schemathesis_tests() {
  schemathesis_on ""
  local database=schemathesis_$$
  ${TEST_PSQL:=psql} -Xq "$TEST_DATABASE_URL" -c "create database $database"
  schemathesis_on "${TEST_DATABASE_URL%/*}/$database"
  $TEST_PSQL -Xq "$TEST_DATABASE_URL" -c "drop database $database"
}
