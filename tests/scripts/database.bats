# Rules of scripts/database.
load lib
load cloud

@test "a command finds the database as the role" {
  _cloud prd
  passes scripts/database prd service psql -c 'select 1'
  grep -F 'the_service tickets value@of/--secret=prd-db_password postgres://the_service:value%40of%2F--secret%3Dprd-db_password@127.0.0.1:' "$scratch/connections"
  passes scripts/database prd owner psql -c 'select 1'
  grep -F 'the_owner tickets value@of/--secret=prd-db_migrate_password postgres://the_owner:' "$scratch/connections"
}

@test "the proxy listens on loopback and ends with the command" {
  _cloud stg
  passes scripts/database stg service psql
  called 'cloud-sql-proxy --address 127.0.0.1 --port * a-project:here:db-stg'
  [ ! -e "$scratch/proxy-runs" ]
}

@test "the command s failure is the script s" {
  _cloud stg
  status=0
  scripts/database stg service bash -c 'exit 7' || status=$?
  equals 7 $status
  [ ! -e "$scratch/proxy-runs" ]
}

@test "a proxy that does not start says why" {
  _cloud stg
  _breaks proxy
  fails scripts/database stg service psql
  says 'the instance is not running'
  not_called psql
}

@test "no password is an argument" {
  _cloud stg
  passes scripts/database stg owner psql
  not_called 'value@of'
  not_called 'value%40of'
}

@test "the credentials of github are used there" {
  _cloud stg
  GOOGLE_APPLICATION_CREDENTIALS=$scratch/credentials passes scripts/database stg owner psql
  not_called --gcloud-auth
  passes scripts/database stg owner psql
  called --gcloud-auth
}

@test "the outputs of another environment are refused" {
  _cloud stg
  TERRAFORM_OUTPUTS=$(cat "$scratch/outputs") fails scripts/database prd service psql
  not_called psql
  not_called gcloud
}

@test "role and environment are checked" {
  _cloud stg
  fails scripts/database stg superuser psql
  fails scripts/database other service psql
  fails scripts/database stg service
  not_called psql
}
