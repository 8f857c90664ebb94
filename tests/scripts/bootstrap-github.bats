# Rules of scripts/bootstrap-github, with a stand-in GitHub that stores what it gets and returns it.
load lib

_github() {
  export GITHUB_REPOSITORY=an-owner/tickets
  mkdir -p "$scratch/github"
  printf '%s\n' DOCKERHUB_USERNAME DOCKERHUB_TOKEN >"$scratch/github/secrets"
  echo GCP_PROJECT_ID | tee "$scratch/github/secrets-stg" >"$scratch/github/secrets-prd"
  stand_in gh <<'SH'
cd "$scratch/github"
_there() { cat "$1" 2>/dev/null || { echo "gh: Not Found (HTTP 404)" >&2; exit 1; }; }
_names() { jq -Rnc '{secrets: [inputs | {name: .}]}' "$1"; }
! [ -e broken ] || { echo "gh: Server Error (HTTP 500)" >&2; exit 1; }
path=$*
path=${path#api }
path=${path%\?per_page=100&includes_parents=false}
case $path in
  "users/ana --jq .id") echo 11 ;;
  "users/ben --jq .id") echo 7 ;;
  "--method PUT repos/an-owner/tickets/environments/"*" --input -")
    name=${path#*environments/}
    jq '{deployment_branch_policy, protection_rules: (if .reviewers == [] then [] else [{type: "required_reviewers", prevent_self_review,
      reviewers: [.reviewers[] | {type, reviewer: {id, login: "x"}}]}] end)}' >"environment-${name%% *}" ;;
  "--method POST repos/an-owner/tickets/environments/"*/deployment-branch-policies*)
    name=${path#*environments/}
    name=${name%%/*}
    jq -c '. + {id: 1}' >>"policies-$name" ;;
  repos/an-owner/tickets/environments/*/deployment-branch-policies)
    name=${path#*environments/}
    touch "policies-${name%%/*}"; jq -sc "{branch_policies: .}" "policies-${name%%/*}" ;;
  repos/an-owner/tickets/environments/*/secrets) name=${path#*environments/}; _names "secrets-${name%%/*}" ;;
  repos/an-owner/tickets/environments/*) _there "environment-${path##*/}" ;;
  repos/an-owner/tickets/actions/secrets) _names secrets ;;
  "--method POST repos/an-owner/tickets/rulesets "*) cat >new; cp new "rules-$(jq -r .name new)" ;;
  "--method PUT repos/an-owner/tickets/rulesets/"*) cat >new; cp new "rules-$(jq -r .name new)" ;;
  repos/an-owner/tickets/rulesets) ls | sed -n 's/^rules-//p' | jq -Rnc '[inputs | {name: ., id: .}]' ;;
  repos/an-owner/tickets/rulesets/*)
    jq '.id = 1 | .rules |= (map(if .parameters then .parameters.known_to_github_alone = true else . end) | reverse)' "rules-${path##*/}" ;;
  *) echo "not asked for: $path" >&2; exit 1 ;;
esac
SH
}

@test "a new repository gets everything and then passes the check" {
  _github
  fails scripts/bootstrap-github --check ana ben
  says "differs: environment prd"
  says "differs: rules main"
  not_called "--method"
  passes scripts/bootstrap-github ana ben
  equals '[{"id":7,"type":"User"},{"id":11,"type":"User"}]' \
    "$(jq -Sc '[.protection_rules[0].reviewers[] | {type, id: .reviewer.id}]' "$scratch/github/environment-prd")"
  equals true "$(jq '.protection_rules[0].prevent_self_review' "$scratch/github/environment-prd")"
  equals '["main","v*"]' "$(jq -sc 'map(.name)' "$scratch/github/policies-prd")"
  passes scripts/bootstrap-github --check ana ben
  says "is as docs/deployment.md describes it"
}

@test "the second time nothing is sent" {
  _github
  passes scripts/bootstrap-github ana ben
  local sent
  sent=$(calls "--method")
  passes scripts/bootstrap-github ana ben
  equals "$sent" "$(calls "--method")"
}

@test "what somebody changed is found and set again" {
  _github
  passes scripts/bootstrap-github ana ben
  sed -i 's/"passed"/"another"/' "$scratch/github/rules-main"
  jq '.protection_rules[0].prevent_self_review = false' "$scratch/github/environment-prd" >"$scratch/changed"
  mv "$scratch/changed" "$scratch/github/environment-prd"
  fails scripts/bootstrap-github --check ana ben
  says "differs: rules main"
  says "differs: environment prd"
  not_says "differs: environment stg"
  says "2 difference(s) remain"
  passes scripts/bootstrap-github ana ben
  passes scripts/bootstrap-github --check ana ben
}

@test "whoever was let bypass the rules is found and put out" {
  local name
  _github
  passes scripts/bootstrap-github ana ben
  for name in main releases; do
    jq '.bypass_actors = [{actor_id: 4, actor_type: "RepositoryRole", bypass_mode: "always"}]' "$scratch/github/rules-$name" >"$scratch/changed"
    mv "$scratch/changed" "$scratch/github/rules-$name"
  done
  fails scripts/bootstrap-github --check ana ben
  says "differs: rules main"
  says "differs: rules releases"
  says "2 difference(s) remain"
  passes scripts/bootstrap-github ana ben
  equals '[]' "$(jq -c .bypass_actors "$scratch/github/rules-main")"
  passes scripts/bootstrap-github --check ana ben
}

# An answer without them, as whoever is no administrator gets, proves nothing.
@test "rules whose bypasses github does not tell are not taken for good" {
  _github
  passes scripts/bootstrap-github ana ben
  jq 'del(.bypass_actors)' "$scratch/github/rules-main" >"$scratch/changed"
  mv "$scratch/changed" "$scratch/github/rules-main"
  fails scripts/bootstrap-github --check ana ben
  says "differs: rules main"
}

@test "the branch of a hot fix is begun by administrators and changed as main is" {
  _github
  passes scripts/bootstrap-github ana ben
  equals '["refs/heads/main","refs/heads/release/*","refs/heads/release/**/*"]' "$(jq -c .conditions.ref_name.include "$scratch/github/rules-main")"
  equals '["creation"] [5]' "$(jq -r '"\(.rules | map(.type)) \(.bypass_actors | map(.actor_id))"' "$scratch/github/rules-hot-fixes")"
  equals '["main","release/*"]' "$(jq -sc 'map(.name)' "$scratch/github/policies-stg")"
  called_in_order '--method POST repos/an-owner/tickets/rulesets' '--method POST repos/an-owner/tickets/rulesets' \
    '--method POST repos/an-owner/tickets/rulesets' '--method POST *environments/stg/deployment-branch-policies'
}

@test "another branch that may deploy is told and left to a person" {
  _github
  passes scripts/bootstrap-github ana ben
  echo '{"name":"feature/*","type":"branch"}' >>"$scratch/github/policies-prd"
  fails scripts/bootstrap-github ana ben
  says 'environment prd may also be deployed to from ["feature/*"]'
}

@test "secrets that are missing are named" {
  _github
  passes scripts/bootstrap-github ana ben
  : >"$scratch/github/secrets-prd"
  fails scripts/bootstrap-github --check ana ben
  says "missing: the secret GCP_PROJECT_ID of prd"
}

@test "a failure of github is not taken for a thing that is missing" {
  _github
  stand_in gh <<'SH'
case "$*" in *users/*) echo 7 ;; *) echo "gh: Server Error (HTTP 500)" >&2; exit 1 ;; esac
SH
  fails scripts/bootstrap-github ana ben
  says "HTTP 500"
  not_called "--method"
}

@test "one reviewer alone is warned of" {
  _github
  passes scripts/bootstrap-github ana
  says "cannot approve a deployment that ana starts"
}
