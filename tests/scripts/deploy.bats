# Rules of scripts/deploy. Whatever fails, the old revision keeps serving.
load lib
load cloud

_deployment_fails() { # WHAT-BREAKS…
  _cloud stg "$OLD"
  _breaks "$@"
  export GITHUB_STEP_SUMMARY=$scratch/summary
  fails scripts/deploy stg "$IMAGE"
}

@test "a revision gets traffic after it was tested at its own address" {
  _cloud stg "$OLD"
  passes scripts/deploy stg "$IMAGE"
  called_in_order 'terraform -chdir=terraform workspace select -or-create stg' \
    "terraform -chdir=terraform plan * -var=image=$IMAGE -var=serving_revision=$OLD" 'terraform -chdir=terraform apply' \
    'gcloud run jobs execute migrate-stg --wait' 'psql * --file=sql/postgres/testdata/' 'cargo test --locked --test suite remote' \
    'psql * --file=sql/postgres/cleanup/' "docker run * --env SMOKE_KEY $IMAGE smoke --url https://candidate.example" \
    'terraform -chdir=terraform plan' 'terraform -chdir=terraform apply' "docker run * smoke --url https://public.example"
  _serves "$NEW"
  equals 1 "$(calls '-var=serving_revision=')"
  says "$NEW serves"
}

@test "the remote tests know the candidate and its database" {
  _cloud stg "$OLD"
  passes scripts/deploy stg "$IMAGE"
  read -r url key database <"$scratch/remote"
  equals https://candidate.example "$url"
  equals value@of/--secret=stg-organizer_key "$key"
  [[ $database == "postgres://the_service:value%40of%2F--secret%3Dstg-db_password@127.0.0.1:"*"/tickets?sslmode=disable" ]]
}

@test "production gets no test data" {
  _cloud prd register-ticket-api-prd-00001-abc
  passes scripts/deploy prd "$IMAGE"
  called 'gcloud run jobs execute migrate-prd --wait'
  not_called psql
  not_called cargo
  called 'docker run * smoke --url https://candidate.example'
}

@test "the first deployment asks the health when there is no smoke key yet" {
  _cloud stg
  unset SMOKE_KEY
  passes scripts/deploy stg "$IMAGE"
  not_called '-var=serving_revision='
  not_called 'docker run * smoke'
  called 'curl * https://public.example/health?full=1'
  _serves "$NEW"
}

@test "later deployments need the smoke key" {
  _cloud stg "$OLD"
  unset SMOKE_KEY
  fails scripts/deploy stg "$IMAGE"
  says 'SMOKE_KEY is missing'
  not_called 'terraform -chdir=terraform plan'
}

@test "after a failed first deployment no smoke key is needed yet" {
  _cloud stg "$OLD"
  _breaks health-now
  unset SMOKE_KEY
  passes scripts/deploy stg "$IMAGE"
  called 'curl * https://candidate.example/health?full=1'
  _serves "$NEW"
}

@test "a failed first deployment says that there is no way back" {
  _cloud stg
  _breaks migrate
  fails scripts/deploy stg "$IMAGE"
  not_called 'gcloud run services update-traffic'
  says 'none to go back to'
}

@test "a failure of terraform tells where locks are explained" {
  _deployment_fails apply
  says 'If Terraform'"'"'s state is locked: docs/runbook.md#terraforms-state-is-locked-'
  grep -qx "## Terraform's state is locked ☁" docs/runbook.md
}

@test "a tag is refused" {
  _cloud stg "$OLD"
  fails scripts/deploy stg docker.io/someone/register-ticket-api:latest@sha256:abc
  not_called terraform
  fails scripts/deploy stg docker.io/someone/register-ticket-api:latest
  not_called terraform
}

@test "a tag of another version changes nothing" {
  _cloud prd register-ticket-api-prd-00001-abc
  GITHUB_REF_TYPE=tag GITHUB_REF_NAME=v9.9.9 fails scripts/deploy prd "$IMAGE"
  says "the tag is v9.9.9, but Cargo.toml says $(_crate_version)"
  not_called terraform
  not_called gcloud
}

@test "a tag that a person set on the commit counts too" {
  local git
  git=$(command -v git)
  _cloud prd register-ticket-api-prd-00001-abc
  stand_in git <<<"if [ \$1 = tag ]; then echo v9.9.9; else exec $git \"\$@\"; fi"
  fails scripts/deploy prd "$IMAGE"
  says 'the tag is v9.9.9'
  not_called terraform
}

@test "the tag of this version and a branch are deployed" {
  _cloud prd register-ticket-api-prd-00001-abc
  GITHUB_REF_TYPE=tag GITHUB_REF_NAME=v$(_crate_version) passes scripts/deploy prd "$IMAGE"
  _cloud prd register-ticket-api-prd-00001-abc
  GITHUB_REF_TYPE=branch GITHUB_REF_NAME=main passes scripts/deploy prd "$IMAGE"
}

@test "an image of another version changes nothing" {
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

@test "another workspace is refused" {
  _deployment_fails workspace
  not_called 'terraform -chdir=terraform plan'
}

@test "another environment is refused" {
  _cloud stg "$OLD"
  fails scripts/deploy test "$IMAGE"
  equals 0 "$(calls terraform)"
}

# If it were treated as a first deployment, all traffic would go to an untested revision.
@test "a service that cannot be listed is not a missing one" {
  _deployment_fails list
  not_called 'terraform -chdir=terraform plan'
}

@test "split traffic is refused" {
  _deployment_fails split
  says 'the traffic is split between'
  not_called 'terraform -chdir=terraform plan'
}

@test "tests that do not build change nothing" {
  _deployment_fails build
  grep -F "$OLD serves, as before" "$scratch/summary"
  not_called 'terraform -chdir=terraform plan'
}

@test "a failed apply leaves the old revision" {
  _deployment_fails apply
  not_called 'gcloud run jobs execute'
  _serves "$OLD"
}

@test "a failed migration leaves the old revision and tests nothing" {
  _deployment_fails migrate
  not_called psql
  not_called 'docker run * smoke'
  _serves "$OLD"
  says "$OLD serves, as before"
}

@test "failed remote tests leave the old revision and no test data" {
  _deployment_fails remote-tests
  called_in_order 'cargo test --locked --test suite remote' 'psql * --file=sql/postgres/cleanup/'
  not_called 'docker run * smoke'
  _serves "$OLD"
}

@test "half loaded test data is removed" {
  _deployment_fails testdata
  called 'psql * --file=sql/postgres/cleanup/'
  not_called 'cargo test --locked --test suite remote'
  _serves "$OLD"
}

@test "test data that stays is a failure" {
  _deployment_fails cleanup
  equals 2 "$(calls 'psql * --file=sql/postgres/cleanup/')"
  says 'scripts/deploy stg clean-up'
  _serves "$OLD"
}

@test "a database out of reach is a failure" {
  _deployment_fails proxy
  says 'the instance is not running'
  _serves "$OLD"
}

@test "a candidate that fails the smoke gets no traffic" {
  _deployment_fails smoke-candidate
  called 'psql * --file=sql/postgres/cleanup/'
  equals 1 "$(calls 'terraform -chdir=terraform apply')"
  not_called 'gcloud run services update-traffic * --to-revisions'
  _serves "$OLD"
}

@test "a change of traffic that fails half way is taken back" {
  _deployment_fails switch
  called "gcloud run services update-traffic register-ticket-api-stg --to-revisions=$OLD=100 --project=a-project --region=here"
  _serves "$OLD"
  says "$OLD serves, as before"
}

@test "a revision that fails the smoke in public is taken back" {
  _deployment_fails smoke-public
  called "gcloud run services update-traffic register-ticket-api-stg --to-revisions=$OLD=100"
  _serves "$OLD"
}

@test "the summary says what serves" {
  _deployment_fails smoke-public
  grep -F "$OLD serves, as before" "$scratch/summary"
  grep -F "$IMAGE" "$scratch/summary"
}

@test "the summary says when the way back failed" {
  _deployment_fails smoke-public route
  grep -F "$OLD does NOT serve, but $NEW: run scripts/deploy stg route $OLD" "$scratch/summary"
}

@test "an interrupted deployment cleans up and leaves the old revision" {
  _cloud stg "$OLD"
  # Like GitHub, which ends a cancelled run by signalling the script alone.
  stand_in cargo <<'SH'
case "$*" in *--no-run*) exit ;; esac
kill -INT "$(cat "$scratch/pid")"
SH
  fails bash -c 'echo $$ >"$scratch/pid"; trap - INT; exec scripts/deploy stg "$0"' "$IMAGE"
  called 'psql * --file=sql/postgres/cleanup/'
  not_called 'docker run * smoke'
  _serves "$OLD"
}

@test "values of github reach terraform only when they are set" {
  _cloud stg "$OLD"
  DB_NAME=another DB_PASSWORD='' passes scripts/deploy stg "$IMAGE"
  grep -Fx TF_VAR_db_name=another "$scratch/variables"
  grep -Fx TF_VAR_github_repository=Someone/Tickets "$scratch/variables"
  run ! grep -F TF_VAR_db_password "$scratch/variables"
}

@test "secrets are masked and in no argument" {
  _cloud stg "$OLD"
  GITHUB_ACTIONS=true passes scripts/deploy stg "$IMAGE"
  says '::add-mask::value@of/--secret=stg-organizer_key'
  says '::add-mask::postgres://the_service:value%40of'
  not_called 'value@of'
  not_called 'value%40of'
  not_called smoke-key-of-a-test
}

@test "a person repeats one step" {
  _cloud stg "$OLD"
  passes scripts/deploy stg serving
  says "$OLD"
  passes scripts/deploy stg migrate
  called 'gcloud run jobs execute migrate-stg --wait'
  passes scripts/deploy stg clean-up
  called 'psql * --file=sql/postgres/cleanup/'
  passes scripts/deploy stg route another-revision
  _serves another-revision
  fails scripts/deploy prd clean-up
  fails scripts/deploy prd remote-test
}

@test "what served before keeps a name for the way back" {
  _cloud stg "$OLD"
  passes scripts/deploy stg "$IMAGE"
  equals "$OLD" "$(cat "$scratch/previous")"
  passes scripts/deploy stg roll-back
  _serves "$OLD"
  says "$OLD serves. It took over from $NEW"
  called 'curl * https://previous.example/health?full=1'
  equals 2 "$(calls 'terraform -chdir=terraform apply')"
  not_called 'gcloud secrets versions add'
}

@test "a deployment that fails leaves the way back as it is and marks the candidate" {
  _cloud stg "$OLD"
  echo the-one-before >"$scratch/previous"
  _breaks smoke-candidate
  fails scripts/deploy stg "$IMAGE"
  equals the-one-before "$(cat "$scratch/previous")"
  called "gcloud run services update-traffic register-ticket-api-stg --update-tags=failed=$NEW --remove-tags=candidate"
}

@test "without a way back nothing changes" {
  _cloud prd register-ticket-api-prd-00001-abc
  fails scripts/deploy prd roll-back
  says "no revision is named previous"
  echo register-ticket-api-prd-00001-abc >"$scratch/previous"
  fails scripts/deploy prd roll-back
  says "serves already"
  not_called 'gcloud run services update-traffic'
}

@test "a way back that is not healthy says so" {
  _cloud stg "$NEW"
  echo "$OLD" >"$scratch/previous"
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

@test "a cancelled deployment is stopped and the traffic goes back" {
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

@test "what is deaf to the signal is killed and the lock that it leaves has a page" {
  _cancelled prd terraform '* apply *' 2 deaf
  stand_in sleep
  passes scripts/deploy prd finish
  equals "" "$(_running)"
  says 'docs/runbook.md#terraforms-state-is-locked-'
  _serves register-ticket-api-prd-00001-abc
  not_called psql
}

@test "what was cut off after the traffic moved is taken back by the next step" {
  _killed prd docker '*smoke*public*' 1 after
  _serves "$NEW"
  passes scripts/deploy prd finish
  _serves register-ticket-api-prd-00001-abc
  not_called psql
  passes scripts/deploy prd finish
  says "no deployment was cut off"
}

@test "test data that a cut off deployment left is removed by the next step" {
  _killed stg psql '*testdata*' 1 after
  equals 1 "$(calls 'psql * --file=sql/postgres/cleanup/')" # before loading the data
  passes scripts/deploy stg finish
  equals 2 "$(calls 'psql * --file=sql/postgres/cleanup/')"
  _serves "$OLD"
}

# Its own end could not take the traffic back: so the next step tries.
@test "a way back that failed is left to the next step" {
  _deployment_fails smoke-public route
  _serves "$NEW"
  : >"$scratch/breaks"
  passes scripts/deploy stg finish
  _serves "$OLD"
  grep -A 1 'Finish a cancelled deployment' .github/workflows/cd-base.yml | grep -F 'if: failure() || cancelled()'
}

@test "a deployment that ended leaves nothing to finish" {
  _cloud stg "$OLD"
  passes scripts/deploy stg "$IMAGE"
  passes scripts/deploy stg finish
  says "no deployment was cut off"
  _serves "$NEW"
}

@test "what serves already is no way back from itself and is not marked as failed" {
  _cloud stg "$NEW"
  echo "$OLD" >"$scratch/previous"
  passes scripts/deploy stg "$IMAGE"
  equals "$OLD" "$(cat "$scratch/previous")"
  _breaks smoke-candidate
  fails scripts/deploy stg "$IMAGE"
  not_called "--update-tags=failed"
}
