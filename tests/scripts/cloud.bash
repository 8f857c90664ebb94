# A small cloud for the deployment rules: files in $scratch say what serves where, and $scratch/breaks lists what is
# broken.
# shellcheck shell=bash
# shellcheck disable=SC2034 # what the rules use

DIGEST=sha256:$(printf 'a%.0s' {1..64})
IMAGE=docker.io/someone/register-ticket-api@$DIGEST
OLD=register-ticket-api-stg-00001-abc
NEW=register-ticket-api-stg-00002-def

_crate_version() { sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml; }

_image_says() { # LABEL PROGRAM: the versions on an image's label and from its program
  echo "$1" >"$scratch/label"
  echo "$2" >"$scratch/program"
}

_breaks() { printf '%s\n' "$@" >"$scratch/breaks"; }

# _cloud ENV [SERVING]: the revision SERVING serves; if it is left out, nothing does yet.
_cloud() {
  export GCP_PROJECT_ID=a-project GITHUB_REPOSITORY=Someone/Tickets SMOKE_KEY=smoke-key-of-a-test
  touch "$scratch/breaks"
  _image_says "$(_crate_version)" "register-ticket-api $(_crate_version)"
  echo "$1" >"$scratch/environment"
  echo "${2-}" >"$scratch/serving"
  : >"$scratch/candidate"
  : >"$scratch/previous"
  export RUNNER_TEMP=$scratch
  jq -n --arg environment "$1" '{
      service_name: "register-ticket-api-\($environment)", region: "here", migrate_job: "migrate-\($environment)",
      export_job: "export-\($environment)", export_bucket: "a-project-ticket-backups-\($environment)",
      cloud_run_service_url: "https://public.example", db_connection_name: "a-project:here:db-\($environment)",
      db_name: "tickets", db_user: "the_service", db_migrate_user: "the_owner",
      secret_names: (["db_password", "db_migrate_password", "organizer_key", "ticket_secret"]
        | map({key: ., value: "\($environment)-\(.)"}) | from_entries)
    } | map_values({value: .})' >"$scratch/outputs"

  stand_in terraform <<'SH'
_broken() { grep -qx "$1" "$scratch/breaks"; }
case "$*" in
  *" workspace select "*) if _broken workspace; then echo default; else echo "${!#}"; fi >"$scratch/workspace" ;;
  *" workspace show") cat "$scratch/workspace" ;;
  *" output -json") cat "$scratch/outputs" ;;
  *" state list") cat "$scratch/state" ;;
  *" show -json "*) cat "$scratch/destroys" ;;
  *" plan "*)
    : >"$scratch/planned"
    : >"$scratch/planned-previous"
    env | grep '^TF_VAR_' | sort >"$scratch/variables"
    for argument; do
      case $argument in
        -var=serving_revision=*) echo "${argument##*=}" >"$scratch/planned" ;;
        -var=previous_revision=*) echo "${argument##*=}" >"$scratch/planned-previous" ;;
      esac
    done
    ;;
  *" apply "*)
    _broken apply && exit 1
    cp "$scratch/planned-previous" "$scratch/previous"
    if [ -s "$scratch/planned" ]; then
      echo register-ticket-api-stg-00002-def >"$scratch/candidate"
    else
      # All traffic goes to the newest, even if Terraform then fails.
      echo register-ticket-api-stg-00002-def >"$scratch/serving"
      : >"$scratch/candidate"
      ! _broken switch
    fi
    ;;
esac
SH

  stand_in gcloud <<'SH'
_broken() { grep -qx "$1" "$scratch/breaks"; }
case "$*" in
  "run services list "*)
    _broken list && exit 1
    serving=$(cat "$scratch/serving") candidate=$(cat "$scratch/candidate") previous=$(cat "$scratch/previous")
    [ -n "$serving" ] || { echo '[]'; exit; }
    jq -n --arg serving "$serving" --arg candidate "$candidate" --arg previous "$previous" --arg split "$(_broken split && echo yes)" '[{
      metadata: {labels: {"cloud.googleapis.com/location": "here"}},
      spec: {template: {spec: {containers: [{image: "docker.io/someone/register-ticket-api@sha256:'"$(printf 'b%.0s' {1..64})"'"}]}}},
      status: {url: "https://now.example", traffic: ([{revisionName: $serving, percent: 100, latestRevision: true}]
        + if $candidate == "" then [] else [{revisionName: $candidate, tag: "candidate", url: "https://candidate.example"}] end
        + if $previous == "" then [] else [{revisionName: $previous, tag: "previous", url: "https://previous.example"}] end
        + if $split == "" then [] else [{revisionName: "another", percent: 1}] end)}
    }]'
    ;;
  "run revisions describe "*) echo "docker.io/someone/register-ticket-api@sha256:image-of-$4" ;;
  "run services update-traffic "*)
    _broken route && exit 1
    for argument; do
      case $argument in --to-revisions=*=100) argument=${argument#*=}; echo "${argument%=100}" >"$scratch/serving" ;; esac
    done
    ;;
  "run jobs execute migrate-"*) ! _broken migrate ;;
  "run jobs execute export-"*)
    _broken export && exit 1
    _broken no-file || echo "gs://a-project-ticket-backups-stg/tickets-20300102-030405Z.dump" >>"$scratch/bucket"
    ;;
  "storage ls "*) cat "$scratch/bucket" ;;
  "storage cp "*) echo "a dump" >"$4" ;;
  "secrets versions access latest --secret="*) echo "value@of/$5" ;;
esac
SH

  stand_in docker <<'SH'
case "$*" in
  "run "*"smoke --url https://candidate.example") name=smoke-candidate ;;
  "run "*"smoke --url https://public.example") name=smoke-public ;;
  "image inspect "*) cat "$scratch/label"; exit ;;
  "run "*" --version") cat "$scratch/program"; exit ;;
  *) exit ;;
esac
echo "smoke with ${SMOKE_KEY:+a key}"
! grep -qx $name "$scratch/breaks"
SH
  stand_in curl <<'SH'
case "$*" in
  *" https://now.example/health?full=1") ! grep -qx health-now "$scratch/breaks" ;;
  *" https://previous.example/health?full=1") ! grep -qx health-previous "$scratch/breaks" ;;
esac
SH
  stand_in cloud-sql-proxy <<'SH'
grep -qx proxy "$scratch/breaks" && { echo "the instance is not running" >&2; exit 1; }
touch "$scratch/proxy-runs"
trap 'rm "$scratch/proxy-runs"; exit' TERM
while :; do sleep 0.05; done
SH
  stand_in pg_isready <<<'[ -e "$scratch/proxy-runs" ]'
  stand_in psql <<'SH'
echo "$PGUSER $PGDATABASE $PGPASSWORD $DATABASE_URL" >>"$scratch/connections"
case "$*" in
  */testdata/*) ! grep -qx testdata "$scratch/breaks" ;;
  */cleanup/*) ! grep -qx cleanup "$scratch/breaks" ;;
esac
SH
  stand_in cargo <<'SH'
case "$*" in *--no-run*) ! grep -qx build "$scratch/breaks"; exit ;; esac
echo "$BASE_URL $ORGANIZER_KEY $DATABASE_URL" >"$scratch/remote"
! grep -qx remote-tests "$scratch/breaks"
SH
}

_serves() { equals "$1" "$(cat "$scratch/serving")"; }
