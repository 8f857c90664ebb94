# The service against its document: Schemathesis sends what src/openapi.json allows and what it does not, and looks at every answer.
# Read after common.sh.
# shellcheck shell=bash

schemathesis=target/schemathesis

schemathesis_package() {
  if [ ! -x $schemathesis/bin/pip ]; then
    python3 -c 'import ensurepip' 2>/dev/null || apt_install python3-venv || die "Python 3.11 or newer with its venv module is missing"
    python3 -m venv $schemathesis
  fi
  # The copy is written last: it says what is installed.
  if ! cmp -s tests/schemathesis/requirements.txt $schemathesis/requirements.txt; then
    $schemathesis/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/schemathesis/requirements.txt
    cp tests/schemathesis/requirements.txt $schemathesis
  fi
}

# What the requests of schemathesis.toml name: an event with tickets that somebody holds, keys of gates, the link of a ticket.
schemathesis_data() { # DIRECTORY
  local name seat ticket
  api() { # PATH JSON
    curl -sS --fail-with-body "$SERVICE_URL/api/$1" -H "Authorization: Bearer $ORGANIZER_KEY" ${2:+-H 'Content-Type: application/json' -d "$2"}
  }
  api events '{"slug":"gala","name":"Gala","reentry":"after_exit","walk_ups":true}' >/dev/null
  api users '{"username":"ana","full_name":"Ana"}' >/dev/null
  for seat in {1..8}; do
    api events/gala/tickets "{\"seat\":\"$seat\",\"gate\":\"North\"}" >/dev/null
    ticket=$(api users/ana/tickets "{\"seat\":\"$seat\",\"gate\":\"North\",\"event\":\"gala\"}" | jq .ticket_id)
    echo "$ticket" >>"$1/tickets"
    api "tickets/${ticket//\"/}/link" | jq '.ticket_url | sub(".*/"; "")' >>"$1/tokens"
  done
  for name in one two three; do
    api keys "{\"name\":\"$name\",\"role\":\"gate\",\"event\":\"gala\",\"offline\":true}" | jq .key_id >>"$1/keys"
  done
}

# Schemathesis with one key, of which every run prints the seed; SCHEMATHESIS_SEED repeats one.
schemathesis_with() { # DIRECTORY KEY EXAMPLES
  SCHEMATHESIS_KEY=$2 $schemathesis/bin/schemathesis --config-file "$1/schemathesis.toml" run src/openapi.json --url "$SERVICE_URL" \
    --seed "${SCHEMATHESIS_SEED:-$RANDOM}" --max-examples "$3" --continue-on-failure --no-color --warnings off
}

# Against the binary that cargo built, on a database of its own: as an organizer, then as a gate, who may do less.
schemathesis_on() ( # DATABASE_URL
  binary=${CARGO_TARGET_DIR:-target}/debug/register-ticket-api
  export ORGANIZER_KEY=organizer-key-of-the-schemathesis-1 SERVICE_URL
  data=$(mktemp -d)
  profile=(${LLVM_PROFILE_FILE:+"LLVM_PROFILE_FILE=$LLVM_PROFILE_FILE"})
  url=${1:-sqlite:$data/tickets.db}
  env -i "${profile[@]}" DATABASE_URL="$url" "$binary" migrate >/dev/null
  env -i "${profile[@]}" HOST=127.0.0.1 PORT=0 ORGANIZER_KEY="$ORGANIZER_KEY" DATABASE_URL="$url" LOG_FORMAT=text \
    "$binary" serve >"$data/log" 2>&1 &
  service=$!
  trap 'kill $service; wait $service || :; rm -rf "$data"' EXIT
  until grep -q listening "$data/log"; do
    kill -0 $service 2>/dev/null || die "the service ended: $(cat "$data/log")"
    sleep 0.1
  done
  SERVICE_URL=http://127.0.0.1:$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\).*listening.*/\1/p' "$data/log")
  cp tests/schemathesis/schemathesis.toml "$data"
  schemathesis_data "$data"
  schemathesis_with "$data" "$ORGANIZER_KEY" 20
  key=$(curl -sSf "$SERVICE_URL/api/keys" -H "Authorization: Bearer $ORGANIZER_KEY" \
    -H 'Content-Type: application/json' -d '{"name":"gate","role":"gate","offline":true}' | jq -r .key)
  schemathesis_with "$data" "$key" 5
)

schemathesis_tests() {
  schemathesis_on ""
  local database=schemathesis_$$
  ${TEST_PSQL:=psql} -Xq "$TEST_DATABASE_URL" -c "create database $database"
  schemathesis_on "${TEST_DATABASE_URL%/*}/$database"
  $TEST_PSQL -Xq "$TEST_DATABASE_URL" -c "drop database $database"
}
