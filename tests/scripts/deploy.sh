# Rules of scripts/deploy. Whatever fails, the old revision keeps serving.
# shellcheck shell=bash
. tests/scripts/cloud.sh

_deployment_fails() { # WHAT-BREAKS…
  _cloud stg $OLD
  _breaks "$@"
  export GITHUB_STEP_SUMMARY=$scratch/summary
  fails scripts/deploy stg "$IMAGE"
}

a_revision_gets_traffic_after_it_was_tested_at_its_own_address() {
  _cloud stg $OLD
  passes scripts/deploy stg "$IMAGE"
  called_in_order 'terraform -chdir=terraform workspace select -or-create stg' \
    "terraform -chdir=terraform plan * -var=image=$IMAGE -var=serving_revision=$OLD" 'terraform -chdir=terraform apply' \
    'gcloud run jobs execute migrate-stg --wait' 'psql * --file=sql/postgres/testdata/' 'cargo test --locked --test suite remote' \
    'psql * --file=sql/postgres/cleanup/' "docker run * --env SMOKE_KEY $IMAGE smoke --url https://candidate.example" \
    'terraform -chdir=terraform plan' 'terraform -chdir=terraform apply' "docker run * smoke --url https://public.example"
  _serves $NEW
  equals 1 "$(calls '-var=serving_revision=')"
  says "$NEW serves"
}

the_remote_tests_know_the_candidate_and_its_database() {
  _cloud stg $OLD
  passes scripts/deploy stg "$IMAGE"
  read -r url key database <"$scratch/remote"
  equals https://candidate.example "$url"
  equals value@of/--secret=stg-organizer_key "$key"
  [[ $database == "postgres://the_service:value%40of%2F--secret%3Dstg-db_password@127.0.0.1:"*"/tickets?sslmode=disable" ]]
}

production_gets_no_test_data() {
  _cloud prd register-ticket-api-prd-00001-abc
  passes scripts/deploy prd "$IMAGE"
  called 'gcloud run jobs execute migrate-prd --wait'
  not_called psql
  not_called cargo
  called 'docker run * smoke --url https://candidate.example'
}

the_first_deployment_asks_the_health_when_there_is_no_smoke_key_yet() {
  _cloud stg
  unset SMOKE_KEY
  passes scripts/deploy stg "$IMAGE"
  not_called '-var=serving_revision='
  not_called 'docker run * smoke'
  called 'curl * https://public.example/health?full=1'
  _serves $NEW
}

later_deployments_need_the_smoke_key() {
  _cloud stg $OLD
  unset SMOKE_KEY
  fails scripts/deploy stg "$IMAGE"
  says 'SMOKE_KEY is missing'
  not_called 'terraform -chdir=terraform plan'
}

after_a_failed_first_deployment_no_smoke_key_is_needed_yet() {
  _cloud stg $OLD
  _breaks health-now
  unset SMOKE_KEY
  passes scripts/deploy stg "$IMAGE"
  called 'curl * https://candidate.example/health?full=1'
  _serves $NEW
}

a_failed_first_deployment_says_that_there_is_no_way_back() {
  _cloud stg
  _breaks migrate
  fails scripts/deploy stg "$IMAGE"
  not_called 'gcloud run services update-traffic'
  says 'none to go back to'
}

a_failure_of_terraform_tells_where_locks_are_explained() {
  _deployment_fails apply
  says 'If Terraform'"'"'s state is locked: docs/runbook.md#terraforms-state-is-locked-'
  grep -qx "## Terraform's state is locked ☁" docs/runbook.md
}

a_tag_is_refused() {
  _cloud stg $OLD
  fails scripts/deploy stg docker.io/someone/register-ticket-api:latest@sha256:abc
  not_called terraform
  fails scripts/deploy stg docker.io/someone/register-ticket-api:latest
  not_called terraform
}

a_tag_of_another_version_changes_nothing() {
  _cloud prd register-ticket-api-prd-00001-abc
  GITHUB_REF_TYPE=tag GITHUB_REF_NAME=v9.9.9 fails scripts/deploy prd "$IMAGE"
  says "the tag is v9.9.9, but Cargo.toml says $(_crate_version)"
  not_called terraform
  not_called gcloud
}

a_tag_that_a_person_set_on_the_commit_counts_too() {
  local git
  git=$(command -v git)
  _cloud prd register-ticket-api-prd-00001-abc
  stand_in git <<<"if [ \$1 = tag ]; then echo v9.9.9; else exec $git \"\$@\"; fi"
  fails scripts/deploy prd "$IMAGE"
  says 'the tag is v9.9.9'
  not_called terraform
}

the_tag_of_this_version_and_a_branch_are_deployed() {
  _cloud prd register-ticket-api-prd-00001-abc
  GITHUB_REF_TYPE=tag GITHUB_REF_NAME=v$(_crate_version) passes scripts/deploy prd "$IMAGE"
  _cloud prd register-ticket-api-prd-00001-abc
  GITHUB_REF_TYPE=branch GITHUB_REF_NAME=main passes scripts/deploy prd "$IMAGE"
}

an_image_of_another_version_changes_nothing() {
  _cloud prd register-ticket-api-prd-00001-abc
  _image_says 9.9.9 "register-ticket-api $(_crate_version)"
  fails scripts/deploy prd "$IMAGE"
  says "labelled '9.9.9'"
  _image_says "$(_crate_version)" 'register-ticket-api 9.9.9'
  fails scripts/deploy prd "$IMAGE"
  says "its program says 'register-ticket-api 9.9.9'"
  _image_says '' "register-ticket-api $(_crate_version)"
  fails scripts/deploy prd "$IMAGE"
  not_called terraform
  not_called gcloud
}

another_workspace_is_refused() {
  _deployment_fails workspace
  not_called 'terraform -chdir=terraform plan'
}

another_environment_is_refused() {
  _cloud stg $OLD
  fails scripts/deploy test "$IMAGE"
  equals 0 "$(calls terraform)"
}

# If it were treated as a first deployment, all traffic would go to an untested revision.
a_service_that_cannot_be_listed_is_not_a_missing_one() {
  _deployment_fails list
  not_called 'terraform -chdir=terraform plan'
}

split_traffic_is_refused() {
  _deployment_fails split
  says 'the traffic is split between'
  not_called 'terraform -chdir=terraform plan'
}

tests_that_do_not_build_change_nothing() {
  _deployment_fails build
  grep -F "$OLD serves, as before" "$scratch/summary"
  not_called 'terraform -chdir=terraform plan'
}

a_failed_apply_leaves_the_old_revision() {
  _deployment_fails apply
  not_called 'gcloud run jobs execute'
  _serves $OLD
}

a_failed_migration_leaves_the_old_revision_and_tests_nothing() {
  _deployment_fails migrate
  not_called psql
  not_called 'docker run * smoke'
  _serves $OLD
  says "$OLD serves, as before"
}

failed_remote_tests_leave_the_old_revision_and_no_test_data() {
  _deployment_fails remote-tests
  called_in_order 'cargo test --locked --test suite remote' 'psql * --file=sql/postgres/cleanup/'
  not_called 'docker run * smoke'
  _serves $OLD
}

half_loaded_test_data_is_removed() {
  _deployment_fails testdata
  called 'psql * --file=sql/postgres/cleanup/'
  not_called 'cargo test --locked --test suite remote'
  _serves $OLD
}

test_data_that_stays_is_a_failure() {
  _deployment_fails cleanup
  equals 2 "$(calls 'psql * --file=sql/postgres/cleanup/')"
  says 'scripts/deploy stg clean-up'
  _serves $OLD
}

a_database_out_of_reach_is_a_failure() {
  _deployment_fails proxy
  says 'the instance is not running'
  _serves $OLD
}

a_candidate_that_fails_the_smoke_gets_no_traffic() {
  _deployment_fails smoke-candidate
  called 'psql * --file=sql/postgres/cleanup/'
  equals 1 "$(calls 'terraform -chdir=terraform apply')"
  not_called 'gcloud run services update-traffic * --to-revisions'
  _serves $OLD
}

a_change_of_traffic_that_fails_half_way_is_taken_back() {
  _deployment_fails switch
  called "gcloud run services update-traffic register-ticket-api-stg --to-revisions=$OLD=100 --project=a-project --region=here"
  _serves $OLD
  says "$OLD serves, as before"
}

a_revision_that_fails_the_smoke_in_public_is_taken_back() {
  _deployment_fails smoke-public
  called "gcloud run services update-traffic register-ticket-api-stg --to-revisions=$OLD=100"
  _serves $OLD
}

the_summary_says_what_serves() {
  _deployment_fails smoke-public
  grep -F "$OLD serves, as before" "$scratch/summary"
  grep -F "$IMAGE" "$scratch/summary"
}

the_summary_says_when_the_way_back_failed() {
  _deployment_fails smoke-public route
  grep -F "$OLD does NOT serve, but $NEW: run scripts/deploy stg route $OLD" "$scratch/summary"
}

an_interrupted_deployment_cleans_up_and_leaves_the_old_revision() {
  _cloud stg $OLD
  # Like GitHub, which ends a cancelled run by signalling the script alone.
  stand_in cargo <<'SH'
case "$*" in *--no-run*) exit ;; esac
kill -INT "$(cat "$scratch/pid")"
SH
  fails bash -c 'echo $$ >"$scratch/pid"; trap - INT; exec scripts/deploy stg "$0"' "$IMAGE"
  called 'psql * --file=sql/postgres/cleanup/'
  not_called 'docker run * smoke'
  _serves $OLD
}

values_of_github_reach_terraform_only_when_they_are_set() {
  _cloud stg $OLD
  DB_NAME=another DB_PASSWORD='' passes scripts/deploy stg "$IMAGE"
  grep -Fx TF_VAR_db_name=another "$scratch/variables"
  grep -Fx TF_VAR_github_repository=Someone/Tickets "$scratch/variables"
  ! grep -F TF_VAR_db_password "$scratch/variables"
}

secrets_are_masked_and_in_no_argument() {
  _cloud stg $OLD
  GITHUB_ACTIONS=true passes scripts/deploy stg "$IMAGE"
  says '::add-mask::value@of/--secret=stg-organizer_key'
  says '::add-mask::postgres://the_service:value%40of'
  not_called 'value@of'
  not_called 'value%40of'
  not_called smoke-key-of-a-test
}

a_person_repeats_one_step() {
  _cloud stg $OLD
  passes scripts/deploy stg serving
  says $OLD
  passes scripts/deploy stg migrate
  called 'gcloud run jobs execute migrate-stg --wait'
  passes scripts/deploy stg clean-up
  called 'psql * --file=sql/postgres/cleanup/'
  passes scripts/deploy stg route another-revision
  _serves another-revision
  fails scripts/deploy prd clean-up
  fails scripts/deploy prd remote-test
}

what_served_before_keeps_a_name_for_the_way_back() {
  _cloud stg $OLD
  passes scripts/deploy stg "$IMAGE"
  equals "$OLD" "$(cat "$scratch/previous")"
  passes scripts/deploy stg roll-back
  _serves $OLD
  says "$OLD serves. It took over from $NEW"
  called 'curl * https://previous.example/health?full=1'
  equals 2 "$(calls 'terraform -chdir=terraform apply')"
  not_called 'gcloud secrets versions add'
}

a_deployment_that_fails_leaves_the_way_back_as_it_is_and_marks_the_candidate() {
  _cloud stg $OLD
  echo the-one-before >"$scratch/previous"
  _breaks smoke-candidate
  fails scripts/deploy stg "$IMAGE"
  equals the-one-before "$(cat "$scratch/previous")"
  called "gcloud run services update-traffic register-ticket-api-stg --update-tags=failed=$NEW --remove-tags=candidate"
}

without_a_way_back_nothing_changes() {
  _cloud prd register-ticket-api-prd-00001-abc
  fails scripts/deploy prd roll-back
  says "no revision is named previous"
  echo register-ticket-api-prd-00001-abc >"$scratch/previous"
  fails scripts/deploy prd roll-back
  says "serves already"
  not_called 'gcloud run services update-traffic'
}

a_way_back_that_is_not_healthy_says_so() {
  _cloud stg $NEW
  echo $OLD >"$scratch/previous"
  _breaks health-previous
  fails scripts/deploy stg roll-back
  says "scripts/deploy stg route $NEW"
}

# _hangs ENV PROGRAM PATTERN NTH WHEN: runs the step of cd-base.yml until it hangs in the NTH such call: `before` it has its
# effect, `after`, or `deaf`, which is before and without an ear for INT. $step is the shell of the step.
_hangs() {
  _cloud "$1" "register-ticket-api-$1-00001-abc"
  export GITHUB_STEP_SUMMARY=$scratch/summary ENVIRONMENT=$1 IMAGE
  sed -n 's/^ *run: \(scripts\/deploy .*IMAGE.*\)/\1/p' .github/workflows/cd-base.yml >"$scratch/step"
  rm -rf "$scratch"/{hangs,never,held,count}
  mkfifo "$scratch/hangs" "$scratch/never"
  mv "$scratch/bin/$2" "$scratch/bin/$2.real"
  {
    printf '#!/usr/bin/env bash\nset -euo pipefail\nscratch=%q pattern=%q nth=%q when=%q\n' "$scratch" "$3" "$4" "$5"
    cat <<'SH'
# shellcheck disable=SC2053 # a pattern
if [[ $* == $pattern ]]; then echo >>"$scratch/count"; fi
if [[ $* != $pattern ]] || [ "$(wc -l <"$scratch/count")" != "$nth" ]; then exec "$0.real" "$@"; fi
case $when in after) "$0.real" "$@" ;; deaf) trap '' INT ;; esac
exec 8>"$scratch/held"
echo >"$scratch/hangs"
read -r <"$scratch/never"
[ "$when" = after ] || exec "$0.real" "$@"
SH
  } >"$scratch/bin/$2"
  chmod +x "$scratch/bin/$2"
  exec 6> >(exec cat >"$scratch/log")
  reader=$!
  set -m # a group of its own, in which INT is not ignored
  bash --noprofile --norc -eo pipefail "$scratch/step" >&6 2>&1 6>&- &
  step=$!
  set +m
  trap 'kill -KILL -- -$step 2>/dev/null || :' EXIT
  exec 6>&- 7<>"$scratch/hangs"
  read -r -t 60 -u 7 || _wrong "it did not come to $2 $3: $(cat "$scratch/log")"
  exec 7>&-
}

# Prints the call that hangs, for as long as it does.
_running() { find -L /proc/[0-9]*/fd/8 -samefile "$scratch/held" 2>/dev/null || :; }

# As GitHub cancels: INT, after 7.5 s TERM, after 2.5 s KILL, each to the shell of the step alone, whose output nobody reads then.
_cancelled() {
  local signal
  _hangs "$@"
  for signal in INT TERM KILL; do kill -$signal $step 2>/dev/null || :; done
  wait $step || :
  kill -KILL $reader
  [ -n "$(_running)" ] # without the step
}

# As a machine dies.
_killed() {
  _hangs "$@"
  kill -KILL -- -$step
  wait $step || :
}

a_cancelled_deployment_is_stopped_and_the_traffic_goes_back() {
  local environment moment
  for environment in stg prd; do
    for moment in '1 before' '1 after' '2 before' '2 after'; do # of the two applies: the new revision, and all traffic to it
      # shellcheck disable=SC2086 # two arguments
      _cancelled $environment terraform '* apply *' $moment
      passes scripts/deploy $environment finish
      says 'still runs: stopping it'
      equals "" "$(_running)"
      _serves register-ticket-api-$environment-00001-abc
      [ ! -e "$scratch/unfinished-deployment-$environment" ]
    done
  done
}

what_is_deaf_to_the_signal_is_killed_and_the_lock_that_it_leaves_has_a_page() {
  _cancelled prd terraform '* apply *' 2 deaf
  stand_in sleep
  passes scripts/deploy prd finish
  equals "" "$(_running)"
  says 'docs/runbook.md#terraforms-state-is-locked-'
  _serves register-ticket-api-prd-00001-abc
  not_called psql
}

what_was_cut_off_after_the_traffic_moved_is_taken_back_by_the_next_step() {
  _killed prd docker '*smoke*public*' 1 after
  _serves $NEW
  passes scripts/deploy prd finish
  _serves register-ticket-api-prd-00001-abc
  not_called psql
  passes scripts/deploy prd finish
  says "no deployment was cut off"
}

test_data_that_a_cut_off_deployment_left_is_removed_by_the_next_step() {
  _killed stg psql '*testdata*' 1 after
  equals 1 "$(calls 'psql * --file=sql/postgres/cleanup/')" # before loading the data
  passes scripts/deploy stg finish
  equals 2 "$(calls 'psql * --file=sql/postgres/cleanup/')"
  _serves $OLD
}

# Its own end could not take the traffic back: so the next step tries.
a_way_back_that_failed_is_left_to_the_next_step() {
  _deployment_fails smoke-public route
  _serves $NEW
  : >"$scratch/breaks"
  passes scripts/deploy stg finish
  _serves $OLD
  grep -A 1 'Finish a cancelled deployment' .github/workflows/cd-base.yml | grep -F 'if: failure() || cancelled()'
}

a_deployment_that_ended_leaves_nothing_to_finish() {
  _cloud stg $OLD
  passes scripts/deploy stg "$IMAGE"
  passes scripts/deploy stg finish
  says "no deployment was cut off"
  _serves $NEW
}

what_serves_already_is_no_way_back_from_itself_and_is_not_marked_as_failed() {
  _cloud stg $NEW
  echo $OLD >"$scratch/previous"
  passes scripts/deploy stg "$IMAGE"
  equals "$OLD" "$(cat "$scratch/previous")"
  _breaks smoke-candidate
  fails scripts/deploy stg "$IMAGE"
  not_called "--update-tags=failed"
}
