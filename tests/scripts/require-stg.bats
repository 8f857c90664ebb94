# Rules of scripts/require-stg: production gets nothing unless cd-stg succeeded for exactly this commit.
load lib

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
  "api repos/Someone/Tickets/git/ref/heads/main --jq .object.sha") echo tip-of-main ;;
  "api repos/Someone/Tickets/git/ref/heads/release/1.2 --jq .object.sha") echo tip-of-1.2 ;;
  "api repos/Someone/Tickets/compare/"*"...tip-of-"*" --jq .status") cat "$scratch/position" ;;
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

@test "the digest that stg tested is printed" {
  _github .
  equals "$DIGEST" "$(scripts/require-stg)"
  called "gh api repos/Someone/Tickets/compare/$(git rev-parse HEAD)...tip-of-main"
  called 'gh run download 11 --repo Someone/Tickets --name stg-image'
}

@test "a tag of another version is refused" {
  _github .
  GITHUB_REF_TYPE=tag GITHUB_REF_NAME=v9.9.9 _refused
  says 'the tag is v9.9.9, but Cargo.toml says'
  not_called gh
}

@test "a tag of this version and a branch are taken" {
  local version
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
  _github .
  equals "$DIGEST" "$(GITHUB_REF_TYPE=tag GITHUB_REF_NAME=v$version scripts/require-stg)"
  equals "$DIGEST" "$(GITHUB_REF_TYPE=branch GITHUB_REF_NAME=main scripts/require-stg)"
}

@test "the newest success counts" {
  _github '., (.id = 12 | .run_number = 6), (.id = 13 | .run_number = 7 | .conclusion = "failure")'
  passes scripts/require-stg
  called 'gh run download 12'
}

@test "a commit that is not on main is refused" {
  _github .
  for position in behind diverged; do
    echo $position >"$scratch/position"
    _refused
    says 'is not on main'
  done
}

@test "no run is refused" {
  _github empty
  _refused
  says 'cd-stg has no successful run on main'
}

@test "a failed run is refused" {
  _github '.conclusion = "failure"'
  _refused
  says 'run 11 on main: failure'
}

@test "a cancelled or skipped run is refused" {
  for conclusion in cancelled skipped neutral timed_out; do
    _github ".conclusion = \"$conclusion\""
    _refused
  done
}

@test "a run that still runs is refused" {
  _github '.status = "in_progress" | .conclusion = null'
  _refused
}

@test "the branch of a hot fix counts as main does" {
  _github '.head_branch = "release/1.2"'
  equals "$DIGEST" "$(scripts/require-stg)"
  called "gh api repos/Someone/Tickets/compare/$(git rev-parse HEAD)...tip-of-1.2"
  echo behind >"$scratch/position"
  _refused
  says 'is not on release/1.2'
}

@test "a branch that the rules of release do not cover is refused" {
  _github '.head_branch = "release/1.2/x"'
  _refused
}

@test "a tag with the name of a branch is refused" {
  _github '.head_branch = "release/tag"'
  _refused
  says 'release/tag is not a branch'
}

@test "a run on another branch is refused" {
  _github '.head_branch = "feature/x"'
  _refused
  says 'run 11 on feature/x: success'
}

@test "a run of another commit is refused" {
  _github '.head_sha = "0000000000000000000000000000000000000000"'
  _refused
}

@test "a run of another workflow is refused" {
  _github '.path = ".github/workflows/ci-dev-branches.yml"'
  _refused
}

@test "a run of a fork is refused" {
  _github '.head_repository.full_name = "somebody/tickets"'
  _refused
}

@test "a run by a pull request is refused" {
  _github '.event = "pull_request"'
  _refused
}

@test "a run without its artifact is refused" {
  _github .
  rm "$scratch/artifact"
  _refused
  says 'or it expired'
}

@test "what is no digest is refused" {
  _github .
  echo latest >"$scratch/artifact"
  _refused
}

@test "a github that does not answer is a refusal" {
  _github .
  stand_in gh <<<'exit 1'
  _refused
}
