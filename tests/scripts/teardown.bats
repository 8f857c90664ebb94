# Rules of scripts/teardown: it removes nothing without the confirmation, nothing without an export that was restored,
# and nothing of another environment.
load lib
load cloud

_environment() { # ENV
  _cloud "$1" "register-ticket-api-$1-00001-abc"
  echo gs://a-project-ticket-backups-stg/tickets-20260101-000000Z.dump >"$scratch/bucket"
  printf '%s\n' 'data.google_project.project' 'google_sql_database_instance.database' 'google_cloud_run_v2_service.service' \
    'google_secret_manager_secret.secret["db_password"]' 'google_monitoring_alert_policy.errors' >"$scratch/state"
  _destroys "$1" '.'
  chmod 711 "$BATS_RUN_TMPDIR" "$scratch" # PostgreSQL, of the rehearsal, runs as another user
  stand_in docker <<'SH'
case "$1" in
  create) echo a-container ;;
  cp)
    printf '#!/usr/bin/env bash\necho "program $*" >>%q\n! grep -qx verify %q\n' "$scratch/calls" "$scratch/breaks" >"$3"
    chmod +x "$3"
    ;;
esac
SH
}

# The output of `terraform show -json` for the plan, with a jq filter applied to one of its changes.
_destroys() { # ENV FILTER
  jq -n --arg environment "$1" '{
    address: "google_sql_database_instance.database", type: "google_sql_database_instance",
    change: {actions: ["delete"], before: {name: "register-ticket-api-\($environment)", project: "a-project"}}
  } | {resource_changes: [., ('"$2"')]}' >"$scratch/destroys"
}

_nothing_is_destroyed() { not_called 'terraform -chdir=terraform apply'; }

@test "the wrong word does nothing" {
  _environment stg
  for word in destroy DESTROY. ' DESTROY' yes ''; do fails scripts/teardown stg "$word"; done
  fails scripts/teardown stg
  fails scripts/teardown
  fails scripts/teardown DESTROY
  equals "" "$(cat "$scratch/calls")"
}

@test "only a known environment is destroyed" {
  _environment stg
  for environment in '' default prod 'stg prd'; do fails scripts/teardown "$environment" DESTROY; done
  not_called terraform
}

@test "protections are lifted after an export that was restored" {
  _environment stg
  passes scripts/teardown stg DESTROY
  called_in_order 'terraform -chdir=terraform workspace select stg' 'gcloud run jobs execute export-stg --wait' \
    'gcloud storage cp gs://a-project-ticket-backups-stg/tickets-20300102-030405Z.dump' \
    'program backup verify */tickets-20300102-030405Z.dump' \
    'terraform -chdir=terraform apply * -var=deletion_protection=false -var=serving_revision=register-ticket-api-stg-00001-abc -target=google_sql_database_instance.database -target=google_cloud_run_v2_service.service -target=google_secret_manager_secret.secret?"db_password"?' \
    'terraform -chdir=terraform plan * -destroy' 'terraform -chdir=terraform apply -input=false -lock-timeout=5m *plan'
  equals 2 "$(calls 'terraform -chdir=terraform apply')"
  says 'tickets-20300102-030405Z.dump, which was verified'
}

@test "the other environment is never named" {
  _environment stg
  passes scripts/teardown stg DESTROY
  not_called prd
  _environment prd
  : >"$scratch/calls"
  passes scripts/teardown prd DESTROY
  equals 0 "$(calls 'workspace select stg')"
  equals 0 "$(calls 'environments/stg')"
}

@test "a failed export ends it" {
  _environment stg
  _breaks export
  fails scripts/teardown stg DESTROY
  _nothing_is_destroyed
}

@test "an export that left no file ends it" {
  _environment stg
  _breaks no-file
  fails scripts/teardown stg DESTROY
  says 'has no new export'
  _nothing_is_destroyed
}

@test "an export that cannot be restored ends it" {
  _environment stg
  _breaks verify
  fails scripts/teardown stg DESTROY
  says 'cannot be restored'
  _nothing_is_destroyed
}

@test "another workspace ends it" {
  _environment stg
  _breaks workspace
  fails scripts/teardown stg DESTROY
  _nothing_is_destroyed
  not_called 'gcloud run jobs execute'
}

@test "a plan that names the other environment is refused" {
  _environment stg
  for name in register-ticket-api-prd register-ticket-api-migrate-prd ticket-export-prd@a-project.iam.gserviceaccount.com; do
    _destroys stg ".change.before.name = \"$name\""
    fails scripts/teardown stg DESTROY
    says 'The plan goes beyond stg'
  done
  _destroys stg '.change.before.effective_labels.environment = "prd"'
  fails scripts/teardown stg DESTROY
  _nothing_is_destroyed
  not_called 'gcloud run jobs execute'
}

@test "a plan with a bucket is refused" {
  _environment stg
  _destroys stg '.type = "google_storage_bucket"'
  fails scripts/teardown stg DESTROY
  _nothing_is_destroyed
}

@test "a plan that creates is refused" {
  _environment stg
  _destroys stg '.change.actions = ["delete", "create"]'
  fails scripts/teardown stg DESTROY
  _nothing_is_destroyed
}

# Such as the accounts that release 0.1.0 created with Terraform: they stay.
@test "what is only forgotten is no stranger" {
  _environment stg
  _destroys stg '.type = "google_service_account" | .change.actions = ["forget"]'
  passes scripts/teardown stg DESTROY
}

# A project may have that name.
@test "the name of the project does not count" {
  _environment stg
  export GCP_PROJECT_ID=tickets-prd
  _destroys stg '.change.before.project = "tickets-prd"'
  passes scripts/teardown stg DESTROY
}

@test "what an earlier run left is destroyed" {
  _environment stg
  : >"$scratch/serving"
  echo 'google_monitoring_alert_policy.errors' >"$scratch/state"
  passes scripts/teardown stg DESTROY
  not_called 'gcloud run jobs execute'
  not_called ' -target='
  called 'terraform -chdir=terraform apply'
}

@test "nothing left is no failure" {
  _environment stg
  : >"$scratch/state"
  passes scripts/teardown stg DESTROY
  says 'Terraform has nothing in stg'
  _nothing_is_destroyed
}

@test "a failed apply is a failure" {
  _environment stg
  _breaks apply
  fails scripts/teardown stg DESTROY
}
