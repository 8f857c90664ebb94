# Functions of the scripts that work with a deployed environment. They source it from the root of the repository.
# shellcheck shell=bash

shopt -s inherit_errexit # a failure inside $(…) ends the script; needs bash 4.4

. scripts/lib/common.sh

note() { printf '== %s\n' "$*" >&2; }

# Masks a value in GitHub's logs. GitHub reads the command from either stream.
mask() {
  local line
  [ -n "${GITHUB_ACTIONS-}" ] || return 0
  while IFS= read -r line; do
    [ -z "$line" ] || printf '::add-mask::%s\n' "$line" >&2
  done <<<"$1"
}

# Fails if a tag is not the version of Cargo.toml: the tag that GitHub runs for, or else the commit's local tags. A branch needs
# no tag.
same_tag() {
  local version tag tags
  version=$(crate_version)
  if [ "${GITHUB_REF_TYPE-}" = tag ]; then tags=$GITHUB_REF_NAME; else tags=$(git tag --points-at HEAD 'v[0-9]*'); fi
  for tag in $tags; do
    [ "$tag" = "v$version" ] || die "the tag is $tag, but Cargo.toml says $version, so nothing was changed. \
Delete the tag. Then tag this commit v$version, or raise the version in Cargo.toml, merge that and tag its commit"
  done
}

# Fails, in addition, if the image's label or program names another version.
same_version() { # IMAGE
  local version label program
  same_tag
  version=$(crate_version)
  docker pull --quiet "$1" >&2
  label=$(docker image inspect --format '{{index .Config.Labels "org.opencontainers.image.version"}}' "$1")
  program=$(docker run --rm --read-only "$1" --version)
  if [ "$label" != "$version" ] || [ "$program" != "register-ticket-api $version" ]; then
    die "Cargo.toml says $version, but $1 is labelled '$label' and its program says '$program', so nothing was changed. \
Check out the commit that it was built from, or run cd-stg for this one"
  fi
}

terraform_here() { terraform -chdir=terraform "$@"; }

if_locked="If Terraform's state is locked: docs/runbook.md#terraforms-state-is-locked-"

# For changes of the state: waits while somebody else makes one.
terraform_writes() { # plan|apply ARGUMENT…
  terraform_here "$1" -input=false -lock-timeout=5m "${@:2}" >&2 || die "terraform $1 failed. $if_locked"
}

# Sets `environment`, and initializes Terraform with its state and workspace. Passes the secrets and variables from GitHub that are
# set to Terraform under their TF_VAR_ names.
open_environment() { # ENV [-or-create]
  local name
  environment=$1
  shift
  case $environment in
    stg | prd) ;;
    *) die "'$environment' is not an environment: stg or prd" ;;
  esac
  need GCP_PROJECT_ID
  for name in DB_NAME DB_USER DB_PASSWORD DB_MIGRATE_PASSWORD ORGANIZER_KEY TICKET_SECRET \
    SMTP_URL MAIL_FROM ALERT_EMAIL BILLING_ACCOUNT BACKUP_BUCKET; do
    [ -z "${!name-}" ] || export "TF_VAR_${name,,}=${!name}"
  done
  [ -z "${GITHUB_REPOSITORY-}" ] || export "TF_VAR_github_repository=$GITHUB_REPOSITORY"
  export "TF_VAR_project_id=$GCP_PROJECT_ID" TF_IN_AUTOMATION=1
  unset TF_WORKSPACE # it would take precedence over the selection below
  terraform_here init -input=false -reconfigure "-backend-config=bucket=${TF_STATE_BUCKET:-event-access-tfstate}" >&2
  terraform_here workspace select "$@" "$environment" >&2
  [ "$(terraform_here workspace show)" = "$environment" ] || die "Terraform is not in the workspace $environment"
}

# Reads Terraform's outputs once, also for the scripts that this one calls.
read_outputs() {
  TERRAFORM_OUTPUTS=$(terraform_here output -json)
  export TERRAFORM_OUTPUTS
  [ "$(output service_name)" = "register-ticket-api-$environment" ] || die "these outputs are not those of $environment"
}

output() { # NAME [KEY]: prints the output, or nothing if it is null
  jq -r --arg name "$1" --arg key "${2-}" \
    '.[$name].value | if $key == "" then . else .[$key] end // empty' <<<"$TERRAFORM_OUTPUTS"
}

required_output() { # NAME [KEY]
  local value
  value=$(output "$@")
  [ -n "$value" ] || die "Terraform has no output '$*' in $environment: was it ever deployed?"
  printf '%s\n' "$value"
}

secret() { # KEY of the output secret_names: prints the newest version
  local name value
  name=$(required_output secret_names "$1")
  value=$(gcloud secrets versions access latest "--secret=$name" "--project=$GCP_PROJECT_ID")
  mask "$value"
  printf '%s\n' "$value"
}

# Prints the Cloud Run service as gcloud describes it, or null. It uses `list` instead of `describe` to distinguish a missing
# service from a failed call.
service() {
  gcloud run services list "--project=$GCP_PROJECT_ID" "--filter=metadata.name=register-ticket-api-$environment" \
    --format=json | jq 'if length > 1 then error("the service exists in two regions") else .[0] end'
}

# Prints the revision with all the traffic, or nothing if none serves. Fails if the traffic is split.
serving() {
  local service
  service=$(service)
  jq -r '[.status.traffic // [] | .[] | select((.percent // 0) > 0) | .revisionName] | unique
    | if length > 1 then error("the traffic is split between \(join(", "))") else .[0] // empty end' <<<"$service"
}

region() { service | jq -r '.metadata.labels["cloud.googleapis.com/location"]'; }

# Prints the image of the revision that serves, by digest, or nothing. The service itself names the image of the newest
# revision, which may have failed or been rolled back.
serving_image() {
  local revision
  revision=$(serving)
  [ -z "$revision" ] || gcloud run revisions describe "$revision" "--project=$GCP_PROJECT_ID" "--region=$(region)" \
    "--format=value(spec.containers[0].image)"
}

# Prints the newest export in a bucket, or nothing. The names contain the time.
newest_export() { # BUCKET
  local listing
  listing=$(gcloud storage ls "gs://$1" "--project=$GCP_PROJECT_ID")
  sed -n '/\/tickets-[0-9]\{8\}-[0-9]\{6\}Z\.dump$/p' <<<"$listing" | sort | tail -n 1
}
