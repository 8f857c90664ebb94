# Rules of scripts/bootstrap-gcp, with a stand-in gcloud that knows the project and, in a new one, nothing else. It
# saves the conditions, whose files are deleted afterwards. The stand-in gh knows the ids of repository and owner.
load lib

_gcloud() { # the exit code of `describe`: 0 in a complete project, 1 in a new one
  stand_in gh <<'SH'
[ "$*" = "api repos/an-owner/tickets --jq \"\\(.id) \\(.owner.id)\"" ] && echo 700700 4242
SH
  echo '{}' >"$scratch/project-policy"
  echo '{}' >"$scratch/account-policy"
  stand_in gcloud <<SH
for argument; do
  case \$argument in --condition-from-file=*) cat "\${argument#*=}" >>"\$scratch/conditions" ;; esac
  case \$argument in --lifecycle-file=*) jq -e .rule "\${argument#*=}" >/dev/null ;; esac
done
case \$* in
  "projects describe"*) echo 123456789012 ;;
  *" describe "*) exit $1 ;;
  "projects get-iam-policy"*) cat "\$scratch/project-policy" ;;
  "iam service-accounts get-iam-policy"*) cat "\$scratch/account-policy" ;;
esac
SH
}

# The tokens that the pool may accept, by attribute.
_pool=principalSet://iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/github

_bootstrap() { # ENVIRONMENT OPTION…
  local environment=$1
  shift
  scripts/bootstrap-gcp --project a-project --repository an-owner/tickets --environment "$environment" "$@"
}

@test "a new project gets everything" {
  _gcloud 1
  passes _bootstrap stg
  called 'services enable --project=a-project *sqladmin.googleapis.com'
  called 'service-accounts create ticket-deploy-stg'
  called 'service-accounts create ticket-export-stg'
  called 'service-accounts create ticket-rehearse-stg'
  called 'storage buckets create gs://event-access-tfstate '
  called 'storage buckets create gs://a-project-ticket-backups-stg '
  called 'workload-identity-pools create github'
  called 'providers create-oidc register-ticket-api'
  says 'gh secret set GCP_SERVICE_ACCOUNT --repo an-owner/tickets --env stg --body ticket-deploy-stg@a-project.iam'
  says 'projects/123456789012/locations/global/workloadIdentityPools/github/providers/register-ticket-api'
}

@test "the second run creates nothing and repairs the settings" {
  _gcloud 0
  passes _bootstrap stg
  not_called ' create '
  not_called ' create-oidc '
  called 'providers update-oidc register-ticket-api'
  called 'storage buckets update gs://event-access-tfstate *--public-access-prevention --versioning'
  called 'storage buckets update gs://a-project-ticket-backups-stg *--public-access-prevention --soft-delete-duration=90d'
}

@test "accounts are there before they are granted something" {
  _gcloud 1
  passes _bootstrap stg
  called_in_order 'service-accounts create ticket-deploy-stg' 'buckets add-iam-policy-binding' 'projects add-iam-policy-binding' \
    'service-accounts add-iam-policy-binding ticket-deploy-stg'
}

# Others can take the names, so neither they nor the subject, which contains them, decide anything.
@test "only tokens of the repository are trusted by its numbers" {
  _gcloud 1
  passes _bootstrap stg
  called "--attribute-condition=assertion.repository_id == '700700' && assertion.repository_owner_id == '4242'"
  not_called 'providers *an-owner'
  not_called 'assertion.sub'
  not_called '/subject/'
  not_called 'add-iam-policy-binding *an-owner'
}

@test "numbers that github does not tell trust nobody" {
  _gcloud 1
  stand_in gh <<<'exit 1'
  fails _bootstrap stg
  stand_in gh <<<"echo \"1' || true || '1 2\""
  fails _bootstrap stg
  says 'are not numbers'
  not_called workload-identity-pools
}

@test "the deployer of production is pinned to its environment" {
  _gcloud 1
  passes _bootstrap prd
  equals 1 "$(calls 'service-accounts add-iam-policy-binding ticket-deploy-prd@*')"
  called "add-iam-policy-binding ticket-deploy-prd@* --member=$_pool/attribute.environment/700700:prd "
  called "attribute.environment=assertion.repository_id + ':' + (has(assertion.environment) ? assertion.environment : '')"
}

# Without workflow and branch, any job of the repository could read people's names.
@test "who rehearses is one workflow of main and only looks" {
  _gcloud 1
  passes _bootstrap prd
  equals 1 "$(calls 'service-accounts add-iam-policy-binding ticket-rehearse-prd@*')"
  called "add-iam-policy-binding ticket-rehearse-prd@* --member=$_pool/attribute.workflow/700700:restore-rehearsal.yml@refs/heads/main "
  called "attribute.workflow=assertion.repository_id + ':' + assertion.workflow_ref.extract('/.github/workflows/{file_and_ref}')"
  [ -f .github/workflows/restore-rehearsal.yml ]
  equals 2 "$(calls '--member=serviceAccount:ticket-rehearse-prd@')"
  called 'projects add-iam-policy-binding a-project --member=serviceAccount:ticket-rehearse-prd@* --role=roles/run.viewer'
  called 'gs://a-project-ticket-backups-prd --member=serviceAccount:ticket-rehearse-prd@* --role=roles/storage.objectViewer'
}

# Anyone who may run things as an account has its rights: of the project's accounts, only those that it deploys.
@test "the deployer may act as what it deploys and as no other" {
  local name
  _gcloud 1
  passes _bootstrap prd
  equals 3 "$(calls '--role=roles/iam.serviceAccountUser')"
  for name in service migrate export; do
    called "service-accounts create ticket-$name-prd "
    called "service-accounts add-iam-policy-binding ticket-$name-prd@a-project.iam.gserviceaccount.com * --member=serviceAccount:ticket-deploy-prd@a-project.iam.gserviceaccount.com --role=roles/iam.serviceAccountUser"
  done
  not_called 'projects add-iam-policy-binding * --role=roles/iam.'
  # Every account that Terraform runs something as is one of these.
  equals "export migrate service" "$(grep -oh 'account_of\["[a-z]*"\]' terraform/*.tf | cut -d '"' -f 2 | sort -u | paste -sd ' ')"
  equals "" "$(grep -hE '^resource "google_service_account|serviceAccountUser|serviceAccountTokenCreator' terraform/*.tf || :)"
}

# A right that was given a moment ago may not hold yet where something starts.
@test "what runs as one of them waits until its rights hold" {
  equals "$(cat terraform/*.tf | grep -cE '^resource "google_cloud_run_v2_(service|job)"')" \
    "$(cat terraform/*.tf | grep -cF 'depends_on = [terraform_data.granted]')"
  grep -A 5 '^resource "terraform_data" "granted"' terraform/iam.tf | grep -F 'command = "sleep 120"'
}

@test "what was granted too much is taken away" {
  local deployer=serviceAccount:ticket-deploy-prd@a-project.iam.gserviceaccount.com
  _gcloud 0
  jq -n --arg deployer "$deployer" '{bindings: [
    {role: "roles/iam.serviceAccountUser", members: ["user:somebody@example.org", $deployer]},
    {role: "roles/iam.serviceAccountAdmin", members: ["user:somebody@example.org"]}
  ]}' >"$scratch/project-policy"
  jq -n --arg good "$_pool/attribute.environment/700700:prd" --arg old "${_pool/principalSet/principal}/subject/repo:an-owner/tickets:environment:prd" \
    '{bindings: [{role: "roles/iam.workloadIdentityUser", members: [$good, $old]}, {role: "roles/iam.serviceAccountUser", members: ["user:a@b"]}]}' \
    >"$scratch/account-policy"
  passes _bootstrap prd
  called "projects remove-iam-policy-binding a-project --member=$deployer --role=roles/iam.serviceAccountUser"
  equals 1 "$(calls 'projects remove-iam-policy-binding')"
  called 'service-accounts remove-iam-policy-binding ticket-deploy-prd@* --role=roles/iam.workloadIdentityUser --member=principal://*/subject/repo:an-owner/tickets:environment:prd '
  equals 1 "$(calls 'service-accounts remove-iam-policy-binding ticket-deploy-prd@')"
}

@test "the deployer cannot delete backups" {
  _gcloud 1
  passes _bootstrap prd
  equals 1 "$(calls 'gs://a-project-ticket-backups-prd --member=serviceAccount:ticket-deploy-prd@')"
  called 'gs://a-project-ticket-backups-prd --member=serviceAccount:ticket-deploy-prd@* --role=roles/storage.objectViewer'
  not_called 'projects add-iam-policy-binding * --role=roles/storage'
}

@test "the deployer writes the state of its environment only" {
  _gcloud 1
  passes _bootstrap stg --state-bucket another-state
  called 'gs://another-state --member=serviceAccount:ticket-deploy-stg@* --role=roles/storage.objectUser --condition-from-file='
  grep -qF "startsWith('projects/_/buckets/another-state/objects/register-ticket-api/stg.')" "$scratch/conditions"
  not_called event-access-tfstate
}

@test "the deployer gives no role but the database s" {
  _gcloud 1
  passes _bootstrap stg
  called '--role=roles/resourcemanager.projectIamAdmin --condition-from-file='
  grep -qF "hasOnly(['roles/cloudsql.client'])" "$scratch/conditions"
  not_called '--role=roles/owner'
  not_called '--role=roles/editor'
}

@test "the budget is allowed only when asked" {
  _gcloud 1
  passes _bootstrap stg
  not_called 'billing accounts'
  passes _bootstrap stg --billing-account 000000-000000-000000
  called 'billing accounts add-iam-policy-binding 000000-000000-000000 * --role=roles/billing.costsManager'
}

@test "a dry run calls nothing" {
  passes _bootstrap prd --dry-run --billing-account 000000-000000-000000
  not_called gcloud
  not_called gh
  says 'gcloud storage buckets create gs://event-access-tfstate'
  says 'gcloud iam service-accounts create ticket-deploy-prd'
  says "startsWith('projects/_/buckets/event-access-tfstate/objects/register-ticket-api/prd.')"
}

@test "a refused command stops it" {
  _gcloud 1
  stand_in gcloud <<'SH'
case $* in
  "projects describe"*) echo 123456789012 ;;
  *" describe "*) exit 1 ;;
  "storage buckets create"*) echo "The bucket you tried to create is somebody else's." >&2; exit 1 ;;
esac
SH
  fails _bootstrap stg
  says "somebody else's"
  says 'Run it again'
  not_called workload-identity-pools
}

# _unknown TIMES: the new account that deploys is unknown for so many calls.
_unknown() {
  _gcloud 1
  echo "$1" >"$scratch/unknown"
  mv "$scratch/bin/gcloud" "$scratch/bin/gcloud.real"
  stand_in sleep
  stand_in gcloud <<'SH'
left=$(cat "$scratch/unknown")
if [[ $* == *add-iam-policy-binding*ticket-deploy-stg* ]] && [ "$left" != 0 ]; then
  echo $((left - 1)) >"$scratch/unknown"
  echo "ERROR: INVALID_ARGUMENT: Service account ticket-deploy-stg@a-project.iam.gserviceaccount.com does not exist." >&2
  exit 1
fi
exec "$0.real" "$@"
SH
}

@test "an account that is not known everywhere yet is waited for" {
  _unknown 3
  passes _bootstrap stg
  equals 3 "$(calls 'sleep 60')"
  says 'done. Now tell GitHub'
}

@test "an account that stays unknown stops it" {
  _unknown 100
  fails _bootstrap stg
  says 'ticket-deploy-stg@a-project.iam.gserviceaccount.com does not exist'
  says 'Run it again'
  equals 7 "$(calls 'sleep 60')"
}

@test "every setting that is not the usual one is told for the workflows" {
  _gcloud 1
  passes _bootstrap prd
  not_says 'gh variable set'
  not_says BILLING_ACCOUNT
  passes _bootstrap prd --state-bucket another-state --backup-bucket another-place --billing-account 000000-000000-000000
  says 'gh variable set TF_STATE_BUCKET --repo an-owner/tickets --body another-state'
  says 'gh variable set BACKUP_BUCKET --repo an-owner/tickets --env prd --body another-place'
  says 'gh variable set BACKUP_BUCKET_PRD --repo an-owner/tickets --body another-place'
  says 'gh secret set BILLING_ACCOUNT --repo an-owner/tickets --env prd --body 000000-000000-000000'
}

@test "wrong arguments call nothing" {
  fails scripts/bootstrap-gcp --environment stg --repository an-owner/tickets
  says '--project is missing'
  fails _bootstrap production
  says 'stg or prd'
  fails scripts/bootstrap-gcp --project a-project --environment stg --repository "an-owner/tickets' || true || '"
  says 'OWNER/NAME'
  fails _bootstrap stg --region
  says '--region needs a value'
  fails _bootstrap stg --force
  says "'--force'"
  not_called gcloud
}

@test "help tells without calling" {
  passes scripts/bootstrap-gcp --help
  says 'dry-run'
  not_called gcloud
}

@test "production also gets what the rehearsal needs" {
  _gcloud 0
  passes _bootstrap prd
  says 'gh secret set GCP_PROJECT_ID_PRD --repo an-owner/tickets --body a-project'
  passes _bootstrap stg
  not_says GCP_PROJECT_ID_PRD
}
