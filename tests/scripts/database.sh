# Rules of scripts/database.
# shellcheck shell=bash
. tests/scripts/cloud.sh

a_command_finds_the_database_as_the_role() {
  _cloud prd
  passes scripts/database prd service psql -c 'select 1'
  grep -F 'the_service tickets value@of/--secret=prd-db_password postgres://the_service:value%40of%2F--secret%3Dprd-db_password@127.0.0.1:' "$scratch/connections"
  passes scripts/database prd owner psql -c 'select 1'
  grep -F 'the_owner tickets value@of/--secret=prd-db_migrate_password postgres://the_owner:' "$scratch/connections"
}

the_proxy_listens_on_loopback_and_ends_with_the_command() {
  _cloud stg
  passes scripts/database stg service psql
  called 'cloud-sql-proxy --address 127.0.0.1 --port * a-project:here:db-stg'
  [ ! -e "$scratch/proxy-runs" ]
}

the_command_s_failure_is_the_script_s() {
  _cloud stg
  status=0
  scripts/database stg service bash -c 'exit 7' || status=$?
  equals 7 $status
  [ ! -e "$scratch/proxy-runs" ]
}

a_proxy_that_does_not_start_says_why() {
  _cloud stg
  _breaks proxy
  fails scripts/database stg service psql
  says 'the instance is not running'
  not_called psql
}

no_password_is_an_argument() {
  _cloud stg
  passes scripts/database stg owner psql
  not_called 'value@of'
  not_called 'value%40of'
}

the_credentials_of_github_are_used_there() {
  _cloud stg
  GOOGLE_APPLICATION_CREDENTIALS=$scratch/credentials passes scripts/database stg owner psql
  not_called --gcloud-auth
  passes scripts/database stg owner psql
  called --gcloud-auth
}

the_outputs_of_another_environment_are_refused() {
  _cloud stg
  TERRAFORM_OUTPUTS=$(cat "$scratch/outputs") fails scripts/database prd service psql
  not_called psql
  not_called gcloud
}

role_and_environment_are_checked() {
  _cloud stg
  fails scripts/database stg superuser psql
  fails scripts/database other service psql
  fails scripts/database stg service
  not_called psql
}
