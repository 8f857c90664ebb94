# Rules of scripts/teardown: it removes nothing without the confirmation, nothing without an export that was restored,
# and nothing of another environment.
# shellcheck shell=bash
. tests/scripts/cloud.sh

_environment() { # ENV
  _cloud "$1" "register-ticket-api-$1-00001-abc"
  echo gs://a-project-ticket-backups-stg/tickets-20260101-000000Z.dump >"$scratch/bucket"
  printf '%s\n' 'data.google_project.project' 'google_sql_database_instance.database' 'google_cloud_run_v2_service.service' \
    'google_secret_manager_secret.secret["db_password"]' 'google_monitoring_alert_policy.errors' >"$scratch/state"
  _destroys "$1" '.'
  chmod 711 "$scratch" # PostgreSQL, of the rehearsal, runs as another user
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

the_wrong_word_does_nothing() {
  _environment stg
  for word in destroy DESTROY. ' DESTROY' yes ''; do fails scripts/teardown stg "$word"; done
  fails scripts/teardown stg
  fails scripts/teardown
  fails scripts/teardown DESTROY
  equals "" "$(cat "$scratch/calls")"
}

only_a_known_environment_is_destroyed() {
  _environment stg
  for environment in '' default prod 'stg prd'; do fails scripts/teardown "$environment" DESTROY; done
  not_called terraform
}

protections_are_lifted_after_an_export_that_was_restored() {
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

the_other_environment_is_never_named() {
  _environment stg
  passes scripts/teardown stg DESTROY
  not_called prd
  _environment prd
  : >"$scratch/calls"
  passes scripts/teardown prd DESTROY
  equals 0 "$(calls 'workspace select stg')"
  equals 0 "$(calls 'environments/stg')"
}

a_failed_export_ends_it() {
  _environment stg
  _breaks export
  fails scripts/teardown stg DESTROY
  _nothing_is_destroyed
}

an_export_that_left_no_file_ends_it() {
  _environment stg
  _breaks no-file
  fails scripts/teardown stg DESTROY
  says 'has no new export'
  _nothing_is_destroyed
}

an_export_that_cannot_be_restored_ends_it() {
  _environment stg
  _breaks verify
  fails scripts/teardown stg DESTROY
  says 'cannot be restored'
  _nothing_is_destroyed
}

another_workspace_ends_it() {
  _environment stg
  _breaks workspace
  fails scripts/teardown stg DESTROY
  _nothing_is_destroyed
  not_called 'gcloud run jobs execute'
}

a_plan_that_names_the_other_environment_is_refused() {
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

a_plan_with_a_bucket_is_refused() {
  _environment stg
  _destroys stg '.type = "google_storage_bucket"'
  fails scripts/teardown stg DESTROY
  _nothing_is_destroyed
}

a_plan_that_creates_is_refused() {
  _environment stg
  _destroys stg '.change.actions = ["delete", "create"]'
  fails scripts/teardown stg DESTROY
  _nothing_is_destroyed
}

# Such as the accounts that release 0.1.0 created with Terraform: they stay.
what_is_only_forgotten_is_no_stranger() {
  _environment stg
  _destroys stg '.type = "google_service_account" | .change.actions = ["forget"]'
  passes scripts/teardown stg DESTROY
}

# A project may have that name.
the_name_of_the_project_does_not_count() {
  _environment stg
  export GCP_PROJECT_ID=tickets-prd
  _destroys stg '.change.before.project = "tickets-prd"'
  passes scripts/teardown stg DESTROY
}

what_an_earlier_run_left_is_destroyed() {
  _environment stg
  : >"$scratch/serving"
  echo 'google_monitoring_alert_policy.errors' >"$scratch/state"
  passes scripts/teardown stg DESTROY
  not_called 'gcloud run jobs execute'
  not_called ' -target='
  called 'terraform -chdir=terraform apply'
}

nothing_left_is_no_failure() {
  _environment stg
  : >"$scratch/state"
  passes scripts/teardown stg DESTROY
  says 'Terraform has nothing in stg'
  _nothing_is_destroyed
}

a_failed_apply_is_a_failure() {
  _environment stg
  _breaks apply
  fails scripts/teardown stg DESTROY
}
