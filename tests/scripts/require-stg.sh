# Rules of scripts/require-stg: production gets nothing unless cd-stg succeeded for exactly this commit.
# shellcheck shell=bash

DIGEST=sha256:$(printf 'a%.0s' {1..64})

# A GitHub with one successful run, changed by a jq filter.
_github() { # FILTER
  export GITHUB_REPOSITORY=Someone/Tickets
  echo ahead >"$scratch/position"
  echo "$DIGEST" >"$scratch/artifact"
  jq -n --arg commit "$(git rev-parse HEAD)" '{
    id: 11, run_number: 5, path: ".github/workflows/cd-stg.yml", event: "push", head_branch: "main", head_sha: $commit,
    head_repository: {full_name: "Someone/Tickets"}, status: "completed", conclusion: "success"
  } | {workflow_runs: [('"$1"')]}' >"$scratch/runs"
  stand_in gh <<'SH'
case "$*" in
  "api repos/Someone/Tickets/compare/"*"...main --jq .status" | "api repos/Someone/Tickets/compare/"*"...release/1.2 --jq .status") cat "$scratch/position" ;;
  "api repos/Someone/Tickets/actions/workflows/cd-stg.yml/runs"*) cat "$scratch/runs" ;;
  "run download "*) cp "$scratch/artifact" "${!#}/digest" ;;
  *) exit 1 ;;
esac
SH
}

_refused() {
  fails scripts/require-stg
  not_says "$DIGEST"
}

the_digest_that_stg_tested_is_printed() {
  _github .
  equals "$DIGEST" "$(scripts/require-stg)"
  called "gh api repos/Someone/Tickets/compare/$(git rev-parse HEAD)...main"
  called 'gh run download 11 --repo Someone/Tickets --name stg-image'
}

a_tag_of_another_version_is_refused() {
  _github .
  GITHUB_REF_TYPE=tag GITHUB_REF_NAME=v9.9.9 _refused
  says 'the tag is v9.9.9, but Cargo.toml says'
  not_called gh
}

a_tag_of_this_version_and_a_branch_are_taken() {
  local version
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
  _github .
  equals "$DIGEST" "$(GITHUB_REF_TYPE=tag GITHUB_REF_NAME=v$version scripts/require-stg)"
  equals "$DIGEST" "$(GITHUB_REF_TYPE=branch GITHUB_REF_NAME=main scripts/require-stg)"
}

the_newest_success_counts() {
  _github '., (.id = 12 | .run_number = 6), (.id = 13 | .run_number = 7 | .conclusion = "failure")'
  passes scripts/require-stg
  called 'gh run download 12'
}

a_commit_that_is_not_on_main_is_refused() {
  _github .
  for position in behind diverged; do
    echo $position >"$scratch/position"
    _refused
    says 'is not on main'
  done
}

no_run_is_refused() {
  _github empty
  _refused
  says 'cd-stg has no successful run on main'
}

a_failed_run_is_refused() {
  _github '.conclusion = "failure"'
  _refused
  says 'run 11 on main: failure'
}

a_cancelled_or_skipped_run_is_refused() {
  for conclusion in cancelled skipped neutral timed_out; do
    _github ".conclusion = \"$conclusion\""
    _refused
  done
}

a_run_that_still_runs_is_refused() {
  _github '.status = "in_progress" | .conclusion = null'
  _refused
}

the_branch_of_a_hot_fix_counts_as_main_does() {
  _github '.head_branch = "release/1.2"'
  equals "$DIGEST" "$(scripts/require-stg)"
  called "gh api repos/Someone/Tickets/compare/$(git rev-parse HEAD)...release/1.2"
  echo behind >"$scratch/position"
  _refused
  says 'is not on release/1.2'
}

a_run_on_another_branch_is_refused() {
  _github '.head_branch = "feature/x"'
  _refused
  says 'run 11 on feature/x: success'
}

a_run_of_another_commit_is_refused() {
  _github '.head_sha = "0000000000000000000000000000000000000000"'
  _refused
}

a_run_of_another_workflow_is_refused() {
  _github '.path = ".github/workflows/ci-dev-branches.yml"'
  _refused
}

a_run_of_a_fork_is_refused() {
  _github '.head_repository.full_name = "somebody/tickets"'
  _refused
}

a_run_by_a_pull_request_is_refused() {
  _github '.event = "pull_request"'
  _refused
}

a_run_without_its_artifact_is_refused() {
  _github .
  rm "$scratch/artifact"
  _refused
  says 'or it expired'
}

what_is_no_digest_is_refused() {
  _github .
  echo latest >"$scratch/artifact"
  _refused
}

a_github_that_does_not_answer_is_a_refusal() {
  _github .
  stand_in gh <<<'exit 1'
  _refused
}
