# Rules of scripts/make-fixtures, with a stand-in for cargo: it creates what tests/suite/fixtures.rs uses.
load lib

_project() {
  mkdir -p "$scratch/project/scripts/lib" "$scratch/project/tests/fixtures/1.2.3" "$scratch/project/target/debug"
  cp scripts/make-fixtures "$scratch/project/scripts"
  cp scripts/lib/common.sh "$scratch/project/scripts/lib"
  cd "$scratch/project"
  echo 'version = "1.2.3"' >Cargo.toml
  touch tests/fixtures/1.2.3/kept
  committed
  stand_in cargo <<<''
}

@test "what was released stays" {
  _project
  git tag v1.2.3
  fails scripts/make-fixtures
  says 'v1.2.3 was released'
  [ -e tests/fixtures/1.2.3/kept ]
  not_called cargo
}

@test "the program of another version makes nothing" {
  _project
  printf '#!/bin/sh\necho register-ticket-api 1.2.2\n' >target/debug/register-ticket-api
  chmod +x target/debug/register-ticket-api
  fails scripts/make-fixtures
  says 'is not version 1.2.3'
  [ -e tests/fixtures/1.2.3/kept ]
}
