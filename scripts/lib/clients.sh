# Generates clients from src/openapi.json, as users of the API do, and tests them. Read after common.sh.
# shellcheck shell=bash

. scripts/lib/system.sh

clients=target/clients

# Installs packages by version and hash; no package runs scripts during installation (tests/clients/.npmrc).
client_packages() {
  mkdir -p $clients
  system_packages node
  python_packages $clients/venv tests/clients/requirements.txt
  # Written last: this copy records what is installed.
  if ! cmp -s tests/clients/package-lock.json $clients/node_modules/installed.json; then
    cp tests/clients/package.json tests/clients/package-lock.json tests/clients/.npmrc $clients
    npm --prefix $clients ci --loglevel=error
    cp tests/clients/package-lock.json $clients/node_modules/installed.json
  fi
}

# Checks that the document is OpenAPI 3.1, then generates the clients. A generator's warning fails.
generate_clients() {
  $clients/venv/bin/openapi-spec-validator --schema 3.1 src/openapi.json
  PATH=$PWD/$clients/venv/bin:$PATH openapi-python-client generate --path src/openapi.json --meta none --overwrite \
    --fail-on-warning --output-path $clients/register_ticket_api_client
  cp tests/clients/client.ts tests/clients/tsconfig.json $clients
  $clients/node_modules/.bin/openapi-typescript src/openapi.json --output $clients/api.d.ts
  $clients/node_modules/.bin/tsc --project $clients
}

# Imports every module of the Python client. (The TypeScript client was compiled.)
import_all() {
  PYTHONPATH=$clients $clients/venv/bin/python -W error - <<'END_OF_PYTHON'
import importlib, pkgutil
import register_ticket_api_client as client

for module in pkgutil.walk_packages(client.__path__, client.__name__ + "."):
    importlib.import_module(module.name)
END_OF_PYTHON
}

# Tests the clients against the binary that cargo built, on its own SQLite database.
client_tests() (
  export ORGANIZER_KEY=organizer-key-of-the-client-tests-01
  generate_clients
  import_all
  $clients/venv/bin/ruff check --quiet --line-length 120 tests/clients
  data=$(mktemp -d)
  serve_built "$data" "sqlite:$data/tickets.db"
  PYTHONPATH=$clients $clients/venv/bin/python tests/clients/client.py
  node $clients/client.js
)
